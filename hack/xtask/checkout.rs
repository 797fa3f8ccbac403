//! The checkout that a task works on.

use std::path::{Path, PathBuf};

/// What only the root of this repository has.
const MARK: &str = "hack/xtask/Cargo.toml";

/// Root of the checkout that contains the current folder; the current folder where none does.
///
/// The folder this program was built in is not it: several checkouts may share one target directory, and the program
/// that one of them built is up to date for the others.
pub fn root() -> PathBuf {
    let here = std::env::current_dir().unwrap_or_default();
    above(&here).unwrap_or(here)
}

/// The nearest root at or above `folder`.
fn above(folder: &Path) -> Option<PathBuf> {
    let root = folder.ancestors().find(|folder| folder.join(MARK).is_file());
    root.map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_found_from_any_folder_of_the_checkout() {
        let root = root();
        assert_eq!(above(&root.join("docs/src")), Some(root));
        assert_eq!(above(Path::new("/")), None);
    }
}
