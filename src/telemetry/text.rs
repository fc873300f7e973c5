//! Numbers and addresses as text, without the formatting machinery: a log line holds some fifteen of them and may
//! cost some hundred instructions in all. Knows nothing of what the numbers mean.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Deref,
};

/// A short text by value: at most `N` bytes. What lies behind its end is of no meaning and may be copied along: a copy
/// of known size is a move or two, one of unknown size is a call.
#[derive(Debug, Clone, Copy)]
pub struct Short<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Short<N> {
    /// The text, and what lies behind it.
    #[inline]
    pub(super) fn padded(&self) -> (&[u8; N], usize) {
        (&self.bytes, self.length)
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }
}

impl<const N: usize> Deref for Short<N> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&self.bytes)
    }
}

/// Appends `value` in decimal, without leading zeros: 1 to 20 bytes.
pub fn append_decimal(value: u64, out: &mut Vec<u8>) {
    if value >= EIGHT_DIGITS {
        append_decimal(value / EIGHT_DIGITS, out);
        out.extend_from_slice(&padded_digits((value % EIGHT_DIGITS) as u32));
    } else {
        out.extend_from_slice(&decimal(value as u32));
    }
}

/// The first number of nine digits.
pub(super) const EIGHT_DIGITS: u64 = 100_000_000;

/// `value` < 10⁸ in decimal: all eight digits in one word, shifted past the leading zeros.
#[inline]
pub(super) fn decimal(value: u32) -> Short<8> {
    let digits = eight_digits(value);
    // The last digit stays, also of 0.
    let zeros = (digits | 1 << 56).trailing_zeros() / 8;
    let bytes = ((digits | ASCII_ZEROS) >> (zeros * 8)).to_le_bytes();
    Short { bytes, length: 8 - zeros as usize }
}

/// `value` < 10⁴ in decimal, the same way with four digits: most numbers are such.
#[inline]
pub(super) fn decimal_small(value: u32) -> Short<4> {
    let pairs = (value / 100) | ((value % 100) << 16);
    let tens = ((pairs * 103) >> 10) & 0x000f_000f;
    let digits = tens | ((pairs - 10 * tens) << 8);
    let zeros = (digits | 1 << 24).trailing_zeros() / 8;
    let bytes = ((digits | ASCII_ZEROS as u32) >> (zeros * 8)).to_le_bytes();
    Short { bytes, length: 4 - zeros as usize }
}

/// `value` < 10⁸ as eight decimal digits.
#[inline]
pub(super) fn padded_digits(value: u32) -> [u8; 8] {
    (eight_digits(value) | ASCII_ZEROS).to_le_bytes()
}

/// `00000000`.
const ASCII_ZEROS: u64 = 0x3030_3030_3030_3030;

/// The eight decimal digits of `value` < 10⁸, one per byte, the first digit in the lowest byte. Each step splits
/// every lane in two by a multiplication with a rounded-up reciprocal, exact for the lane's range.
#[inline]
const fn eight_digits(value: u32) -> u64 {
    let value = value as u64;
    let halves = (value / 10_000) | ((value % 10_000) << 32);
    let hundreds = ((halves * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let pairs = hundreds | ((halves - 100 * hundreds) << 16);
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | ((pairs - 10 * tens) << 8)
}

/// The digits of hexadecimal, lower case, as RFC 9562 §4 and this project's identifiers write them.
pub const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends an address as text: IPv4 in dotted form, IPv6 as RFC 5952 has it, without brackets. An IPv4 address
/// mapped into IPv6 (RFC 4291 §2.5.5.2) is written as the IPv4 address it is: a listener on `[::]` sees those.
pub fn append_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let (text, length) = (ipv4(ip), out.len());
            let (bytes, text_length) = text.padded();
            out.extend_from_slice(bytes);
            out.truncate(length + text_length);
        }
        IpAddr::V6(ip) => out.extend_from_slice(&ipv6(ip)),
    }
}

/// Every octet as its digits and a dot, and how long that is.
const OCTETS: [([u8; 4], u8); 256] = {
    let mut table = [([0; 4], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let n = octet as u8;
        let digits = [b'0' + n / 100, b'0' + n / 10 % 10, b'0' + n % 10];
        table[octet] = match n {
            0..10 => ([digits[2], b'.', 0, 0], 2),
            10..100 => ([digits[1], digits[2], b'.', 0], 3),
            _ => ([digits[0], digits[1], digits[2], b'.'], 4),
        };
        octet += 1;
    }
    table
};

/// An IPv4 address in dotted form.
#[inline]
pub(super) fn ipv4(ip: Ipv4Addr) -> Short<16> {
    let mut bytes = [0; 16];
    let mut end = 0;
    for octet in ip.octets() {
        let (digits, length) = OCTETS[usize::from(octet)];
        bytes[end..end + 4].copy_from_slice(&digits);
        end += usize::from(length);
    }
    // Without the last dot.
    Short { bytes, length: end - 1 }
}

/// An IPv6 address as RFC 5952 §4 has it: lower case, no leading zeros, the first longest run of two or more zero
/// groups as `::`.
pub(super) fn ipv6(ip: Ipv6Addr) -> Short<39> {
    let groups = ip.segments();
    let (skip_at, skip) = longest_zero_run(&groups);
    let mut text = Short { bytes: [0; 39], length: 0 };
    let mut at = 0;
    while at < groups.len() {
        if skip >= 2 && at == skip_at {
            text.push(b':');
            text.push(b':');
            at += skip;
            continue;
        }
        if at > 0 && !(skip >= 2 && at == skip_at + skip) {
            text.push(b':');
        }
        let group = groups[at];
        for shift in [12, 8, 4, 0] {
            if group >> shift != 0 || shift == 0 {
                text.push(HEX[usize::from(group >> shift & 0xf)]);
            }
        }
        at += 1;
    }
    text
}

/// Where the first longest run of zero groups begins, and its length.
fn longest_zero_run(groups: &[u16; 8]) -> (usize, usize) {
    let (mut best_at, mut best, mut run) = (0, 0, 0);
    for (at, group) in groups.iter().enumerate() {
        run = if *group == 0 { run + 1 } else { 0 };
        if run > best {
            (best_at, best) = (at + 1 - run, run);
        }
    }
    (best_at, best)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"before ".to_vec();
        write(&mut out);
        String::from_utf8(out.split_off(7)).unwrap()
    }

    #[test]
    fn decimals_at_every_length() {
        let mut value = 1_u64;
        loop {
            for n in [value - 1, value, value + 1] {
                assert_eq!(text(|out| append_decimal(n, out)), n.to_string());
            }
            let Some(next) = value.checked_mul(10) else { break };
            value = next;
        }
        assert_eq!(text(|out| append_decimal(u64::MAX, out)), u64::MAX.to_string());
    }

    #[test]
    fn every_small_number() {
        for value in 0..10_000 {
            assert_eq!(*decimal_small(value), *value.to_string().as_bytes());
        }
    }

    #[test]
    fn digits_with_zeros_in_front() {
        assert_eq!(&padded_digits(42), b"00000042");
        assert_eq!(&padded_digits(99_999_999), b"99999999");
    }

    #[test]
    fn addresses_of_note() {
        for (ip, expected) in [
            ("::", "::"),
            ("::1", "::1"),
            ("1::", "1::"),
            ("2001:db8::1:0:0:1", "2001:db8::1:0:0:1"),
            ("2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("255.255.255.255", "255.255.255.255"),
            ("0.0.0.0", "0.0.0.0"),
        ] {
            assert_eq!(text(|out| append_ip(ip.parse().unwrap(), out)), expected);
        }
    }

    proptest! {
        #[test]
        fn decimals(value: u64, shift in 0..64) {
            let value = value >> shift;
            prop_assert_eq!(text(|out| append_decimal(value, out)), value.to_string());
        }

        #[test]
        fn ipv4_as_std_writes_it(bits: u32) {
            let ip = Ipv4Addr::from_bits(bits);
            prop_assert_eq!(text(|out| append_ip(ip.into(), out)), ip.to_string());
        }

        #[test]
        fn ipv6_as_std_writes_it(mut groups: [u16; 8], zero: u8) {
            for (at, group) in groups.iter_mut().enumerate() {
                if zero >> at & 1 == 1 {
                    *group = 0;
                }
            }
            let ip = Ipv6Addr::from(groups);
            // std writes the deprecated compatible form (::1.2.3.4) in no special way, the mapped form with dots.
            prop_assume!(ip.to_ipv4_mapped().is_none());
            prop_assert_eq!(text(|out| append_ip(ip.into(), out)), ip.to_string());
        }
    }
}
