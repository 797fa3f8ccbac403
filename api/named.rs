//! One macro for closed sets of names that appear in objects: condition types and reasons.
//! Owns the spelling of a name beside its meaning; the controllers decide when a name is used.

/// Declares an enum of names with `as_str`, `ALL` and `Display`. A variant is spelled like its identifier unless `=
/// "…"` gives another spelling.
macro_rules! named {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[$doc:meta])* $variant:ident $(= $text:literal)? ),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $( $(#[$doc])* $variant ),+ }

        impl $name {
            /// Every name of the set, in the order of declaration.
            pub const ALL: &'static [Self] = &[ $( Self::$variant ),+ ];

            /// The name as it stands in an object.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => named!(@text $variant $($text)?) ),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }
    };
    (@text $variant:ident $text:literal) => { $text };
    (@text $variant:ident) => { stringify!($variant) };
}

pub(crate) use named;
