//! How sockets ended.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::client::{Lost, OpenError};

/// How many ended with which close code; `none` without a close frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Closes {
    codes: BTreeMap<String, u64>,
}

impl Closes {
    /// Counts a socket that has ended.
    pub(super) fn note(&mut self, why: &OpenError) {
        let code = if let OpenError::Lost(Lost::Closed { code, .. }) = why {
            code.to_string()
        } else {
            "none".to_owned()
        };
        *self.codes.entry(code).or_default() += 1;
    }

    /// Sockets that have ended.
    pub(super) fn count(&self) -> u64 {
        self.codes.values().sum()
    }
}

impl fmt::Display for Closes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (code, count)) in self.codes.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{count} with {code}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_by_their_code() {
        let mut closes = Closes::default();
        for code in [1013, 1012, 1013] {
            closes.note(&Lost::Closed { code, reason: String::new() }.into());
        }
        closes.note(&Lost::Ended.into());
        assert_eq!(closes.count(), 4);
        assert_eq!(closes.to_string(), "1 with 1012, 2 with 1013, 1 with none");
        let json = serde_json::to_value(&closes).unwrap();
        assert_eq!(json, serde_json::json!({"1012": 1, "1013": 2, "none": 1}));
        assert_eq!(Closes::default().to_string(), "");
    }
}
