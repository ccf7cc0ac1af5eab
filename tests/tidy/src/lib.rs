//! The tree as the tidiness checks see it: tracked files and their lines.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// One file that git tracks, or would.
#[derive(Debug)]
pub struct File {
    /// From the root of the repository.
    pub path: String,
    /// Its text; files that are no text are left out of the tree.
    pub text: String,
}

impl File {
    /// Lines with their numbers, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines())
    }

    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "rs")
    }
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All text files that git tracks, and those that it does not ignore.
///
/// # Panics
///
/// When git cannot list them.
#[expect(clippy::expect_used, reason = "without the list there is nothing to check")]
pub fn files() -> Vec<File> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    let list = String::from_utf8_lossy(&output.stdout).into_owned();
    let read = |path: &str| {
        let text = fs::read_to_string(root().join(path)).ok()?;
        Some(File { path: path.to_owned(), text })
    };
    list.lines().filter_map(read).collect()
}
