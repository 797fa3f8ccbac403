//! cloud-init's own check of user data against its schema. cloud-init is that of the machines: it runs from their root
//! filesystem as it lies there, so that nothing is installed and no root is needed.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::apiserver::Home;

/// cloud-init.
pub struct CloudInit {
    root: PathBuf,
    home: Home,
}

impl CloudInit {
    /// That of the root filesystem which `KAMAJI_MACHINE_ROOT` names, or of the lab's; none without either, which is
    /// reported.
    ///
    /// # Errors
    /// When no folder can be made.
    pub fn find() -> Result<Option<Self>> {
        let root = std::env::var_os("KAMAJI_MACHINE_ROOT").map_or_else(
            || {
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .with_file_name(".lab")
                    .join("machine-rootfs")
            },
            PathBuf::from,
        );
        if !root.join("usr/bin/cloud-init").exists() {
            crate::skip(&format!(
                "{} has no cloud-init (hack/tools/machine-rootfs makes it)",
                root.display()
            ));
            return Ok(None);
        }
        let home = Home::new()?;
        Ok(Some(Self { root, home }))
    }

    /// Checks user data that starts with `#cloud-config`, or is a template of it, in which every expression has a value.
    ///
    /// # Errors
    /// What cloud-init finds, deprecated fields included.
    pub fn check(&self, name: &str, data: &str) -> Result<()> {
        let file = self.home.file(name);
        std::fs::write(&file, evaluated(data))?;
        let inside = |path: &str| self.root.join(path);
        let output = Command::new(inside("lib64/ld-linux-x86-64.so.2"))
            .arg("--library-path")
            .arg(inside("usr/lib/x86_64-linux-gnu"))
            .arg(inside("usr/bin/python3"))
            .args(["-m", "cloudinit.cmd.main", "schema", "--config-file"])
            .arg(&file)
            .env_clear()
            .env("HOME", self.home.path())
            .env("PYTHONHOME", inside("usr"))
            .env("PYTHONPATH", inside("usr/lib/python3/dist-packages"))
            // The root filesystem is shared, and stays as it is.
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .output()
            .context("cloud-init cannot run")?;
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let said = said.concat();
        let is_old = ["deprecated", "deprecations"]
            .iter()
            .any(|word| said.contains(word));
        let is_valid = output.status.success() && said.contains("Valid cloud-config");
        ensure!(is_valid && !is_old, "{name}: {said}");
        Ok(())
    }
}

/// The document after its expressions are evaluated, each to a word.
fn evaluated(data: &str) -> String {
    let Some(template) = data.strip_prefix("## template: jinja\n") else {
        return data.to_owned();
    };
    let mut parts = template.split("{{");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("value");
        text.push_str(part.split_once("}}").map_or(part, |(_, rest)| rest));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_of_a_template_have_a_value() {
        let data = "## template: jinja\n#cloud-config\na: {{ ds.meta_data.uuid }}-{{ x }}\n";
        assert_eq!(evaluated(data), "#cloud-config\na: value-value\n");
        assert_eq!(
            evaluated("#cloud-config\na: {{ b }}\n"),
            "#cloud-config\na: {{ b }}\n"
        );
    }
}
