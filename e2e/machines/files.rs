//! Writes the files that distinguish a machine from others of its image.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::Result;
use tokio::fs;

use super::seed::Overlay;

/// Writes them below `root`, which is the machine's / later on.
///
/// # Errors
/// When a file cannot be written.
pub async fn write(root: &Path, files: &[Overlay]) -> Result<()> {
    fs::create_dir_all(root).await?;
    for file in files {
        let path = root.join(&*file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).await?;
        }
        fs::write(&path, &file.content).await?;
        fs::set_permissions(&path, std::fs::Permissions::from_mode(file.mode)).await?;
    }
    // Others than root must be able to enter it.
    fs::set_permissions(root, std::fs::Permissions::from_mode(0o755)).await?;
    Ok(())
}
