//! Values that are one word out of few.

use super::{
    field::{Field, Written},
    values::InvalidValue,
};

/// Declares an enum, the word of each variant, and how it is read from a configuration.
macro_rules! words {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Each variant.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word that a configuration has for it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl Field for $name {
            fn set(&mut self, written: &Written<'_>) -> Result<(), InvalidValue> {
                let found = written.text().and_then(|word| {
                    Self::ALL.iter().find(|variant| variant.as_str() == word)
                });
                *self = *found.ok_or_else(|| none_of(written, &[$($word,)+]))?;
                Ok(())
            }

            fn show(&self) -> String {
                format!("{:?}", self.as_str())
            }
        }
    };
}

fn none_of(written: &Written<'_>, words: &[&str]) -> InvalidValue {
    let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.as_slice() {
        [only] => written.refuse(&format!("not {only}, the one value there is")),
        _ => written.refuse(&format!("none of {}", quoted.join(", "))),
    }
}

words! {
    /// The network between the nodes: how fast a silent one is given up.
    Profile {
        /// One data centre: a dead node is seen within a few seconds.
        Lan = "lan",
        /// One data centre, nodes never short of time: a dead node, or one that stands still, is seen sooner.
        Fast = "fast",
        /// Nodes far apart: more patience with slow and lossy paths.
        Wan = "wan",
    }
}

words! {
    /// The shape of log lines.
    LogFormat {
        /// Text for a terminal, JSON for anything else.
        Auto = "auto",
        /// Text.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// The least important log lines that are written.
    Level {
        /// What needs somebody now.
        Error = "error",
        /// What needs a look.
        Warn = "warn",
        /// What an operator wants to know: peers, refused links, slow clients.
        Info = "info",
        /// Each connection and join.
        Debug = "debug",
        /// Each message.
        Trace = "trace",
    }
}

words! {
    /// Who may join a topic.
    JoinRule {
        /// Every client that may connect.
        Anyone = "anyone",
    }
}

words! {
    /// Who may publish on a topic that it has joined.
    PublishRule {
        /// Every client that has joined.
        Anyone = "anyone",
        /// No client; broadcasts come over the API.
        Nobody = "nobody",
    }
}

words! {
    /// Who hears a client's broadcast.
    Deliver {
        /// Everyone on the topic, the sender too.
        All = "all",
        /// Everyone but the channel that sent it.
        Others = "others",
    }
}

words! {
    /// When a client is listed as present.
    PresenceMode {
        /// Never.
        Off = "off",
        /// From its join to its leave.
        Join = "join",
        /// When it asks to be.
        Manual = "manual",
    }
}

words! {
    /// What a client is told of who is present.
    PresenceEvents {
        /// Who is there, then who comes and goes.
        Full = "full",
        /// How many are there, at most once a second.
        Count = "count",
        /// Nothing.
        Off = "off",
    }
}

words! {
    /// What happens to a broadcast for a client that reads too slowly to have room for it.
    Overflow {
        /// The client is disconnected with code 1013; it reconnects and resynchronises.
        Disconnect = "disconnect",
        /// The topic's oldest waiting broadcasts are dropped for it.
        DropOldest = "drop_oldest",
        /// It replaces a waiting broadcast of the same topic and event; without one, the topic's oldest.
        Conflate = "conflate",
    }
}
