//! Which broadcasts of its topic a subscriber wants.

/// Sets of events, each named by its place.
pub type Intercepts = Box<[&'static [&'static str]]>;

/// Which broadcasts of its topic a subscriber wants. Presence diffs are another matter.
///
/// A channel whose own code sees some events before its client has two subscriptions: the client's
/// with all others, and its own with these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// All.
    #[default]
    All,
    /// All but those of this set.
    Except(u16),
    /// Those of this set.
    Only(u16),
}

impl Filter {
    /// No broadcast: for whoever wants presence alone. No set has this place.
    pub const NOTHING: Self = Self::Only(u16::MAX);

    /// Whether a broadcast of `event` is wanted.
    pub(super) fn wants(self, event: &str, sets: Option<&Intercepts>) -> bool {
        let listed = |set: u16| {
            let events = sets.and_then(|sets| sets.get(usize::from(set)));
            events.is_some_and(|events| events.contains(&event))
        };
        match self {
            Self::All => true,
            Self::Except(set) => !listed(set),
            Self::Only(set) => listed(set),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_broadcast_goes_to_the_client_or_to_its_channel() {
        let sets: Intercepts = Box::new([&[], &["secret", "priced"]]);
        for (event, intercepted) in [("secret", true), ("priced", true), ("new", false)] {
            assert_eq!(Filter::Only(1).wants(event, Some(&sets)), intercepted);
            assert_eq!(Filter::Except(1).wants(event, Some(&sets)), !intercepted);
            assert!(Filter::All.wants(event, Some(&sets)) && Filter::Except(0).wants(event, None));
            assert!(!Filter::NOTHING.wants(event, Some(&sets)));
        }
    }
}
