//! What an operator meets: messages, precedence, refusals, the commented file.

mod checks;
mod deploy;
mod files;
mod layers;

use std::{
    ffi::OsString,
    fs,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{Config, ConfigError, Override};

/// A folder of its own for one test, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wingbeat-config-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Loads a file of that text, under variables and flags.
fn load(text: &str, variables: &[(&str, &str)], flags: &[Override]) -> Result<Config, ConfigError> {
    let folder = Folder::new();
    let path = folder.write("wingbeat.toml", text);
    let environment = variables.iter().map(|(k, v)| (OsString::from(k), OsString::from(v)));
    Config::load(Some(&path), environment, flags)
}

/// The message for a file, without the folder.
fn complaint(text: &str) -> String {
    lines(&load(text, &[], &[]).unwrap_err())
}

fn lines(error: &ConfigError) -> String {
    let stripped = error.to_string();
    let shown = stripped.lines().map(|line| match line.find("wingbeat.toml:") {
        Some(at) => &line[at..],
        None => line,
    });
    shown.collect::<Vec<_>>().join("\n")
}

fn parse(text: &str) -> Config {
    load(text, &[], &[]).unwrap()
}
