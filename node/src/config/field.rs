//! One key's value: how it is read from TOML or from text, and how it is shown.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use toml::{
    Spanned,
    de::{DeArray, DeInteger, DeValue},
};

use super::values::InvalidValue;

/// A value as somebody wrote it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Written<'a> {
    /// In a TOML file.
    Toml(&'a DeValue<'a>),
    /// In a variable or after a flag.
    Text(&'a str),
}

/// What a key of the configuration is stored in.
pub(super) trait Field {
    /// Takes the value, or says what the key wants and stays as it is.
    fn set(&mut self, written: &Written<'_>) -> Result<(), InvalidValue>;

    /// The value as TOML; an unset one as `""`.
    fn show(&self) -> String;

    /// What a key's bounds are compared with.
    fn magnitude(&self) -> Option<u64> {
        None
    }
}

/// A value that is written as one text.
pub(super) trait TextValue: Sized {
    /// What stands behind "is" when a text is refused.
    const REFUSAL: &'static str;

    /// Reads it.
    fn read(text: &str) -> Option<Self>;

    /// Writes it.
    fn write(&self) -> String;

    /// See [`Field::magnitude`].
    fn amount(&self) -> Option<u64> {
        None
    }
}

impl<'a> Written<'a> {
    /// The text, unless it is a TOML value of another type.
    pub(super) fn text(&self) -> Option<&'a str> {
        match self {
            Self::Toml(value) => value.as_str(),
            Self::Text(text) => Some(text),
        }
    }

    /// The number, if it is one from 0 up.
    fn number(&self) -> Option<u64> {
        match self {
            Self::Toml(DeValue::Integer(integer)) => integer_value(integer),
            Self::Toml(_) => None,
            Self::Text(text) => text.trim().parse().ok(),
        }
    }

    /// The items of a list; text is split at commas unless it is a TOML array.
    fn items(&self) -> Option<Vec<String>> {
        match self {
            Self::Toml(DeValue::Array(array)) => texts(array),
            Self::Toml(_) => None,
            Self::Text(text) => {
                // What starts with a bracket may be an IPv6 address as well.
                let parsed = DeValue::parse(text).ok();
                if let Some(array) = parsed.as_ref().and_then(|value| value.get_ref().as_array()) {
                    return texts(array);
                }
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Some(items.map(str::to_owned).collect())
            }
        }
    }

    /// The refusal that reads `VALUE is COMPLAINT`.
    pub(super) fn refuse(&self, complaint: &str) -> InvalidValue {
        let shown = match self {
            Self::Text(text) => quote(text),
            Self::Toml(DeValue::String(text)) => quote(text),
            Self::Toml(DeValue::Integer(integer)) => integer.to_string(),
            Self::Toml(DeValue::Boolean(value)) => value.to_string(),
            Self::Toml(DeValue::Float(float)) => float.to_string(),
            Self::Toml(DeValue::Datetime(_)) => "a date".to_owned(),
            Self::Toml(DeValue::Array(_)) => "a list".to_owned(),
            Self::Toml(DeValue::Table(_)) => "a table".to_owned(),
        };
        InvalidValue::new(format!("{shown} is {complaint}"))
    }
}

/// The text in quotes, cut where it gets long.
fn quote(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn integer_value(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn texts(array: &DeArray<'_>) -> Option<Vec<String>> {
    let text = |item: &Spanned<DeValue<'_>>| item.get_ref().as_str().map(str::to_owned);
    array.iter().map(text).collect()
}

impl<T: TextValue> Field for T {
    fn set(&mut self, written: &Written<'_>) -> Result<(), InvalidValue> {
        let value = written.text().and_then(Self::read);
        *self = value.ok_or_else(|| written.refuse(Self::REFUSAL))?;
        Ok(())
    }

    fn show(&self) -> String {
        format!("{:?}", self.write())
    }

    fn magnitude(&self) -> Option<u64> {
        self.amount()
    }
}

impl<T: TextValue> Field for Option<T> {
    fn set(&mut self, written: &Written<'_>) -> Result<(), InvalidValue> {
        *self = match written.text() {
            Some("") => None,
            Some(text) => Some(T::read(text).ok_or_else(|| written.refuse(T::REFUSAL))?),
            None => return Err(written.refuse(T::REFUSAL)),
        };
        Ok(())
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "\"\"".to_owned(), Field::show)
    }

    fn magnitude(&self) -> Option<u64> {
        self.as_ref().and_then(TextValue::amount)
    }
}

impl<T: TextValue> Field for Vec<T> {
    fn set(&mut self, written: &Written<'_>) -> Result<(), InvalidValue> {
        let list = "no list, write [\"a\", \"b\"]";
        let items = written.items().ok_or_else(|| written.refuse(list))?;
        let read =
            |item: &String| T::read(item).ok_or_else(|| Written::Text(item).refuse(T::REFUSAL));
        *self = items.iter().map(read).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn show(&self) -> String {
        format!("[{}]", self.iter().map(Field::show).collect::<Vec<_>>().join(", "))
    }

    fn magnitude(&self) -> Option<u64> {
        u64::try_from(self.len()).ok()
    }
}

impl Field for bool {
    fn set(&mut self, written: &Written<'_>) -> Result<(), InvalidValue> {
        *self = match written {
            Written::Toml(DeValue::Boolean(value)) => *value,
            Written::Text("true") => true,
            Written::Text("false") => false,
            Written::Toml(_) | Written::Text(_) => {
                return Err(written.refuse("neither true nor false"));
            }
        };
        Ok(())
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Field for Option<bool> {
    fn set(&mut self, written: &Written<'_>) -> Result<(), InvalidValue> {
        if written.text() == Some("") {
            *self = None;
            return Ok(());
        }
        let mut value = false;
        value.set(written)?;
        *self = Some(value);
        Ok(())
    }

    fn show(&self) -> String {
        self.map_or_else(|| "\"\"".to_owned(), |value| value.to_string())
    }
}

impl Field for usize {
    fn set(&mut self, written: &Written<'_>) -> Result<(), InvalidValue> {
        let number = written.number().and_then(|number| Self::try_from(number).ok());
        *self = number.ok_or_else(|| written.refuse("no whole number"))?;
        Ok(())
    }

    fn show(&self) -> String {
        self.to_string()
    }

    fn magnitude(&self) -> Option<u64> {
        u64::try_from(*self).ok()
    }
}

impl TextValue for String {
    const REFUSAL: &'static str = "no text, or holds a control character";

    fn read(text: &str) -> Option<Self> {
        (!text.chars().any(char::is_control)).then(|| text.to_owned())
    }

    fn write(&self) -> String {
        self.clone()
    }

    fn amount(&self) -> Option<u64> {
        u64::try_from(self.len()).ok()
    }
}

impl TextValue for PathBuf {
    const REFUSAL: &'static str = "no path";

    fn read(text: &str) -> Option<Self> {
        (!text.is_empty() && !text.contains('\0')).then(|| text.into())
    }

    fn write(&self) -> String {
        self.display().to_string()
    }
}

impl TextValue for SocketAddr {
    const REFUSAL: &'static str = "no address, write IP:PORT as in 127.0.0.1:4000 or [::1]:4000";

    fn read(text: &str) -> Option<Self> {
        text.trim().parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl TextValue for Duration {
    const REFUSAL: &'static str = "no duration, write 10s or 2m";

    fn read(text: &str) -> Option<Self> {
        humantime::parse_duration(text.trim()).ok()
    }

    fn write(&self) -> String {
        humantime::format_duration(*self).to_string()
    }

    fn amount(&self) -> Option<u64> {
        u64::try_from(self.as_millis()).ok()
    }
}
