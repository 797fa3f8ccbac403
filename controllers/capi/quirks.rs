//! Reads what is special about infrastructure kinds: from the program, and from a file that an administrator mounts. Pure.

use kamaji_api::quirks::{EMBEDDED, Quirks};

/// What the program has with it.
///
/// # Errors
/// Never in a program whose tests passed.
pub fn embedded() -> anyhow::Result<Quirks> {
    Ok(serde_yaml::from_str(EMBEDDED)?)
}

/// The same with the entries of `file` over it.
///
/// # Errors
/// What is wrong with the file.
pub fn with(file: &str) -> anyhow::Result<Quirks> {
    Ok(embedded()?.overlaid(serde_yaml::from_str(file)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_file_adds_to_what_the_program_knows() {
        let known =
            with("version: 1\nkinds: [{group: i.example, kind: ThatCluster, immutable: true}]\n").unwrap();
        assert!(known.of("i.example", "ThatCluster").immutable);
        assert!(known.kinds.len() > 20);
        let error = with("version: 1\nkinds: [{kind: A, modus: set}]\n").unwrap_err();
        assert!(error.to_string().contains("modus"), "{error}");
    }
}
