//! Texts and numbers of an object as few bytes in one allocation. Pure.
//!
//! An index holds a hundred thousand objects, and most of what it holds are UIDs, digests and versions: as text they take
//! twice the bytes that they have to, and as a `String` each they take an allocation.

use data_encoding::HEXLOWER;

/// Lengths of the groups of a UUID in bytes, which dashes separate.
const UUID_GROUPS: [usize; 5] = [4, 2, 2, 2, 6];
const UUID_BYTES: usize = 16;
const UUID_LENGTH: usize = 36;
/// The largest number whose header is a `u64`.
const MAX_NUMBER: u64 = u64::MAX >> 2;

/// How a text is kept: the low two bits of its header.
#[derive(Clone, Copy)]
enum Form {
    /// As it is; the rest of the header is its length in bytes.
    Plain = 0,
    /// Lower-case hexadecimal digits; the rest is half their number.
    Hex = 1,
    /// A UUID in lower case; the rest is zero.
    Uuid = 2,
    /// A decimal number; the rest is its value.
    Number = 3,
}

/// Packs texts and numbers, for an [`Unpacker`] to take out in the same order.
#[derive(Default)]
pub struct Packer(Vec<u8>);

impl Packer {
    /// Appends a text of any content.
    pub fn text(&mut self, text: &str) {
        if let Some(number) = decimal(text) {
            self.header(number, Form::Number);
        } else if let Some(bytes) = uuid(text) {
            self.header(0, Form::Uuid);
            self.0.extend(bytes);
        } else if let Some(bytes) = hexadecimal(text) {
            self.header(bytes.len() as u64, Form::Hex);
            self.0.extend(bytes);
        } else {
            self.header(text.len() as u64, Form::Plain);
            self.0.extend(text.as_bytes());
        }
    }

    /// Appends a number, seven bits a byte and the lowest first: small ones take fewer bytes.
    pub fn number(&mut self, number: u64) {
        let mut left = number;
        while left >= 0x80 {
            self.0.push(left.to_le_bytes()[0] | 0x80);
            left >>= 7;
        }
        self.0.push(left.to_le_bytes()[0]);
    }

    /// What was appended.
    pub fn finish(self) -> Box<[u8]> {
        self.0.into_boxed_slice()
    }

    fn header(&mut self, rest: u64, form: Form) {
        self.number(rest << 2 | form as u64);
    }
}

/// Takes out what a [`Packer`] packed. What was not packed is empty, or zero.
#[derive(Clone, Copy)]
pub struct Unpacker<'a>(&'a [u8]);

impl<'a> Unpacker<'a> {
    /// Reads what [`Packer::finish`] returned.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next text.
    pub fn text(&mut self) -> String {
        let header = self.number();
        let rest = header >> 2;
        let length = usize::try_from(rest).unwrap_or(usize::MAX);
        match header & 3 {
            form if form == Form::Plain as u64 => String::from_utf8_lossy(self.bytes(length)).into_owned(),
            form if form == Form::Hex as u64 => HEXLOWER.encode(self.bytes(length)),
            form if form == Form::Uuid as u64 => dashed(self.bytes(UUID_BYTES)),
            _ => rest.to_string(),
        }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        while let Some((&byte, rest)) = self.0.split_first() {
            self.0 = rest;
            number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }

    fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at_checked(length).unwrap_or((self.0, &[]));
        self.0 = rest;
        bytes
    }
}

/// The number, where its text is no other than that of the number.
fn decimal(text: &str) -> Option<u64> {
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let number: u64 = text.parse().ok()?;
    (number <= MAX_NUMBER && number.to_string() == text).then_some(number)
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let last = text.as_bytes().last()?;
    if !text.len().is_multiple_of(2) || !last.is_ascii_hexdigit() {
        return None;
    }
    HEXLOWER.decode(text.as_bytes()).ok()
}

fn uuid(text: &str) -> Option<Vec<u8>> {
    if text.len() != UUID_LENGTH {
        return None;
    }
    let bytes = HEXLOWER.decode(text.replace('-', "").as_bytes()).ok()?;
    (bytes.len() == UUID_BYTES && dashed(&bytes) == text).then_some(bytes)
}

fn dashed(bytes: &[u8]) -> String {
    let mut rest = bytes;
    let groups = UUID_GROUPS.map(|length| {
        let (group, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        rest = tail;
        HEXLOWER.encode(group)
    });
    groups.join("-")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn packed(text: &str) -> Box<[u8]> {
        let mut packer = Packer::default();
        packer.text(text);
        packer.finish()
    }

    #[rstest]
    #[case("demo", 5)]
    #[case("1048576", 4)]
    #[case("d0b5f2c8-1f5e-4c6a-9c57-4f1f9a0b7e11", 17)]
    #[case("9f86d081884c7d659a2feaa0c55ad015", 17)]
    fn what_an_object_has_most_of_takes_few_bytes(#[case] text: &str, #[case] bytes: usize) {
        assert_eq!(packed(text).len(), bytes);
        assert_eq!(Unpacker::new(&packed(text)).text(), text);
    }

    #[rstest]
    #[case("")]
    #[case("0")]
    #[case("7a")]
    #[case("it's 34 characters and ends in a fa")]
    #[case("007")]
    #[case("+7")]
    #[case("18446744073709551615")]
    #[case("4611686018427387904")]
    #[case("ABCD")]
    #[case("abc")]
    #[case("D0B5F2C8-1F5E-4C6A-9C57-4F1F9A0B7E11")]
    #[case("d0b5f2c81f5e-4c6a-9c57-4f1f9a0b7e-11")]
    fn what_only_looks_like_one_of_them_comes_back_as_it_was(#[case] text: &str) {
        assert_eq!(Unpacker::new(&packed(text)).text(), text);
    }

    proptest! {
        #[test]
        fn texts_and_numbers_come_back_in_order(texts in prop::collection::vec(".*|[0-9a-f]*|[0-9]*", 0..8), number: u64) {
            let mut packer = Packer::default();
            for text in &texts {
                packer.text(text);
            }
            packer.number(number);
            let bytes = packer.finish();
            let mut unpacker = Unpacker::new(&bytes);
            for text in &texts {
                prop_assert_eq!(&unpacker.text(), text);
            }
            prop_assert_eq!(unpacker.number(), number);
            prop_assert_eq!(unpacker.text(), "", "nothing is left");
        }
    }
}
