//! What an application pushes: latencies of one component, as bytes.

use bytes::Bytes;
use wingbeat::Payload;

/// Bytes of a name.
const NAME_MAX: usize = 64;

/// Latencies of one component.
#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) component: String,
    /// Four bytes each, of which there is at least one.
    microseconds: Bytes,
}

/// Why samples are not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("samples are a binary payload")]
    Json,
    #[error("the bytes end before the samples do")]
    Short,
    #[error("want 1 to 65,535 samples of 4 bytes, and nothing after them")]
    Length,
    #[error("a name has 1 to 64 letters, digits, '-', '_' or '.'")]
    Name,
    #[error("an application has at most {limit} components")]
    TooMany { limit: usize },
    #[error(transparent)]
    Histogram(#[from] hdrhistogram::CreationError),
}

impl Samples {
    /// Reads the layout that the example's first lines describe.
    pub(crate) fn read(payload: &Payload) -> Result<Self, Invalid> {
        if !payload.is_binary() {
            return Err(Invalid::Json);
        }
        let (length, rest) = payload.bytes().split_first().ok_or(Invalid::Short)?;
        let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or(Invalid::Short)?;
        let (count, rest) = rest.split_first_chunk().ok_or(Invalid::Short)?;
        let count = usize::from(u16::from_be_bytes(*count));
        if count == 0 || rest.len() != 4 * count {
            return Err(Invalid::Length);
        }
        let name = str::from_utf8(name).ok().filter(|name| is_name(name)).ok_or(Invalid::Name)?;
        Ok(Self { component: name.to_owned(), microseconds: payload.bytes().slice_ref(rest) })
    }

    pub(crate) fn microseconds(&self) -> impl Iterator<Item = u32> {
        let (samples, _) = self.microseconds.as_chunks();
        samples.iter().map(|sample| u32::from_be_bytes(*sample))
    }
}

/// Whether an application, an instance or a component may have this name.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(fits)
}
