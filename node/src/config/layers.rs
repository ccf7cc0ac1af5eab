//! The three sources of a configuration, laid over one another: file, environment, flags.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Config, ConfigError, Fault, Origin, Problem,
    field::Written,
    keys::{CHANNEL, CHANNEL_KEYS, KEYS, Key, nearest, sections},
    parts::ChannelRule,
    secrets::{SECRET_VARIABLE, Secret},
};

/// The longest file that is read; a configuration is a few KiB.
const FILE_LEN_MAX: u64 = 1 << 20;

/// What all variables of this program start with.
const VARIABLE_PREFIX: &str = "WINGBEAT_";

/// One key set on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The flag, for messages: `--listen`.
    pub flag: &'static str,
    /// The key's section.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// Its value, written as in a variable.
    pub value: String,
}

/// See [`Config::load`].
pub(super) fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    flags: &[Override],
) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    let mut problems = Vec::new();
    if let Some(path) = file {
        match read(path) {
            Ok(text) => FileLayer { path, text: &text, problems: &mut problems }.apply(&mut config),
            Err(error) => problems.push(Problem {
                origin: Origin::File { path: path.to_owned(), line: None },
                fault: Fault::Unreadable(error.to_string()),
            }),
        }
        root_paths(&mut config, path);
    }
    let mut variables: Vec<_> = environment.into_iter().collect();
    variables.sort();
    for (name, value) in variables {
        if let Some(name) = name.to_str().filter(|name| name.starts_with(VARIABLE_PREFIX))
            && let Err(fault) = apply_variable(&mut config, name, &value)
        {
            problems.push(Problem { origin: Origin::Variable(name.to_owned()), fault });
        }
    }
    for flag in flags {
        let key = KEYS.iter().find(|key| (key.section, key.name) == (flag.section, flag.key));
        let set = match key {
            Some(key) => set(key, &mut config, &Written::Text(&flag.value)),
            None => Err(format!("sets no key {}.{}", flag.section, flag.key)),
        };
        if let Err(why) = set {
            let fault = Fault::Value { key: None, why };
            problems.push(Problem { origin: Origin::Flag(flag.flag), fault });
        }
    }
    ConfigError::new(problems).map_or(Ok(config), Err)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_LEN_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_LEN_MAX {
        return Err(io::Error::other("longer than 1MiB"));
    }
    Ok(text)
}

/// Lets relative paths of the file start at its folder.
fn root_paths(config: &mut Config, file: &Path) {
    let folder = file.parent().unwrap_or(Path::new(""));
    let root = |path: &mut Option<PathBuf>| *path = path.as_ref().map(|path| folder.join(path));
    root(&mut config.cluster.secret_file);
    root(&mut config.auth.api_token_file);
}

/// Sets a key, or says why its value is refused.
fn set<T>(key: &Key<T>, part: &mut T, written: &Written<'_>) -> Result<(), String> {
    let field = (key.field)(part);
    field.set(written).map_err(|invalid| invalid.to_string())?;
    match key.out_of_bounds(field) {
        Some(complaint) => Err(written.refuse(&complaint).to_string()),
        None => Ok(()),
    }
}

fn apply_variable(config: &mut Config, name: &str, value: &OsStr) -> Result<(), Fault> {
    let value_fault = |why: &str| Fault::Value { key: None, why: why.to_owned() };
    let text = || value.to_str().ok_or_else(|| value_fault("the value is not UTF-8"));
    if name == SECRET_VARIABLE {
        let secret = text()?;
        config.cluster.secret = (!secret.is_empty()).then(|| Secret::new(secret));
        return Ok(());
    }
    if let Some(key) = KEYS.iter().find(|key| key.variable() == name) {
        let set = set(key, config, &Written::Text(text()?));
        return set.map_err(|why| Fault::Value { key: None, why });
    }
    let rest = &name[VARIABLE_PREFIX.len()..];
    if !rest.contains("__") {
        // Others' variables start like that too (Kubernetes makes WINGBEAT_PORT for a service of
        // that name), so only a key written with one underscore is a mistake.
        let meant = KEYS.iter().map(Key::variable).find(|key| key.replace("__", "_") == name);
        return meant.map_or(Ok(()), |meant| Err(unknown_variable(Some(meant))));
    }
    if rest.starts_with("CHANNEL__") {
        return Err(value_fault("channel rules come from a config file, [[channel]]"));
    }
    let names = KEYS.iter().map(Key::variable).chain([SECRET_VARIABLE.to_owned()]);
    Err(unknown_variable(nearest(name, names)))
}

fn unknown_variable(hint: Option<String>) -> Fault {
    Fault::Unknown { what: "variable".to_owned(), hint }
}

/// The file, and where its mistakes go.
struct FileLayer<'a> {
    path: &'a Path,
    text: &'a str,
    problems: &'a mut Vec<Problem>,
}

/// A table of the file.
type Table<'i> = DeTable<'i>;

impl FileLayer<'_> {
    fn apply(&mut self, config: &mut Config) {
        let first = self.problems.len();
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            let message = error.message().replace('\n', ", ");
            self.report(at, Fault::Syntax(message));
        }
        for (name, value) in table.get_ref() {
            self.section(config, name, value);
        }
        self.problems[first..].sort_by_key(|problem| match problem.origin {
            Origin::File { line, .. } => line,
            Origin::Variable(_) | Origin::Flag(_) | Origin::Whole => None,
        });
    }

    fn section(
        &mut self,
        config: &mut Config,
        name: &Spanned<impl AsRef<str>>,
        value: &Spanned<DeValue<'_>>,
    ) {
        let (section, at) = (name.get_ref().as_ref(), name.span().start);
        if section == CHANNEL {
            return self.channels(config, value);
        }
        let known = sections().contains(&section);
        let value = value.get_ref();
        let titled =
            value.as_array().is_some_and(|list| list.iter().any(|v| v.get_ref().is_table()));
        match value.as_table() {
            Some(table) if known => self.keys(KEYS, config, section, table),
            None if known => {
                let why = format!("{section} is a section, write [{section}] and its keys below");
                self.report(at, Fault::Value { key: None, why });
            }
            None if !titled => {
                let key = KEYS.iter().find(|key| key.name == section);
                let hint = key.map(|key| format!("{section:?} in [{}]", key.section));
                let what = format!("key {section:?} outside of a section");
                self.report(at, Fault::Unknown { what, hint });
            }
            Some(_) | None => {
                let candidates = sections().into_iter().chain([CHANNEL]);
                let hint = nearest(section, candidates).map(header);
                self.report(at, Fault::Unknown { what: format!("section [{section}]"), hint });
            }
        }
    }

    fn keys<T>(&mut self, keys: &[Key<T>], part: &mut T, section: &str, table: &Table<'_>) {
        for (name, value) in table {
            let (written, at) = (name.get_ref().as_ref(), name.span().start);
            let found = keys.iter().find(|key| key.section == section && key.name == written);
            let Some(key) = found else {
                let fault = unknown_key(keys, section, written);
                self.report(at, fault);
                continue;
            };
            if let Err(why) = set(key, part, &Written::Toml(value.get_ref())) {
                self.report(value.span().start, Fault::Value { key: Some(key.dotted()), why });
            }
        }
    }

    fn channels(&mut self, config: &mut Config, value: &Spanned<DeValue<'_>>) {
        let tables = value.get_ref().as_array().map(|array| {
            array.iter().map(|item| Some((item.get_ref().as_table()?, item.span().start)))
        });
        let Some(tables) = tables.and_then(Iterator::collect::<Option<Vec<_>>>) else {
            let why = "is a list of tables, write [[channel]] before each".to_owned();
            let fault = Fault::Value { key: None, why: format!("channel {why}") };
            return self.report(value.span().start, fault);
        };
        config.channels.clear();
        for (table, at) in tables {
            let mut rule = ChannelRule::default();
            self.keys(CHANNEL_KEYS, &mut rule, CHANNEL, table);
            if !table.contains_key("topic") {
                let why = "[[channel]] has no topic, write topic = \"room:*\"".to_owned();
                self.report(at, Fault::Value { key: None, why });
            }
            config.channels.push(rule);
        }
    }

    fn report(&mut self, at: usize, fault: Fault) {
        let line = 1 + self.text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count();
        let origin = Origin::File { path: self.path.to_owned(), line: Some(line) };
        self.problems.push(Problem { origin, fault });
    }
}

/// A section as it is written in the file.
fn header(section: &str) -> String {
    if section == CHANNEL { "[[channel]]".to_owned() } else { format!("[{section}]") }
}

fn unknown_key<T>(keys: &[Key<T>], section: &str, written: &str) -> Fault {
    let own = keys.iter().filter(|key| key.section == section).map(|key| key.name);
    let elsewhere = || {
        let other = KEYS.iter().find(|key| key.name == written && key.section != section)?;
        Some(format!("{written:?} in {}", header(other.section)))
    };
    let hint = nearest(written, own).map(|name| format!("{name:?}")).or_else(elsewhere);
    Fault::Unknown { what: format!("key {written:?} in {}", header(section)), hint }
}
