//! Doubles as Redis 7.0 formats and parses them.

use crate::resp::Protocol;
use crate::resp::write;

/// Formats like C's `%.17g`.
pub fn text(d: f64) -> String {
    if d.is_infinite() {
        return if d > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if d.is_nan() {
        return "nan".to_owned();
    }
    let scientific = format!("{d:.16e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if !(-4..17).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", trim(mantissa), exponent.unsigned_abs());
    }
    // The digits are correct already: only the decimal point moves.
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest.replace('.', "")),
        None => ("", mantissa.replace('.', "")),
    };
    let fixed = match usize::try_from(exponent) {
        Ok(places) => {
            let (whole, rest) = digits.split_at((places + 1).min(digits.len()));
            format!("{whole}.{rest}")
        }
        Err(_) => format!("0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1)),
    };
    format!("{sign}{}", trim(&fixed))
}

/// Writes a score as a reply.
pub fn reply(out: &mut Vec<u8>, protocol: Protocol, d: f64) {
    let text = text(d);
    match protocol {
        Protocol::Resp2 => write::bulk(out, text.as_bytes()),
        Protocol::Resp3 => {
            out.push(b',');
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Parses all of `text` like C's `strtod`; NaN is rejected.
pub fn parse(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let number = match text.parse::<f64>() {
        Ok(number) => number,
        Err(_) => hexadecimal(text)?,
    };
    (!number.is_nan()).then_some(number)
}

/// Parses a weight as SORT does: up to the first zero byte, leading spaces allowed, empty text is
/// 0. `None` if it is not a number, or overflows.
pub(super) fn parse_weight(text: &[u8]) -> Option<f64> {
    let text = text.split(|&b| b == 0).next().unwrap_or_default();
    let start = text.iter().position(|b| !matches!(b, b' ' | 9..=13)).unwrap_or(text.len());
    let rest = text.get(start..).unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let number = parse(rest)?;
    let named = rest.iter().any(|b| matches!(b, b'n' | b'N'));
    (named || number.is_finite()).then_some(number)
}

fn hexadecimal(text: &str) -> Option<f64> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let text = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
    let (mantissa, exponent) = match text.split_once(['p', 'P']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0.0;
    for digit in whole.chars().chain(fraction.chars()) {
        value = value * 16.0 + f64::from(digit.to_digit(16)?);
    }
    let places = i32::try_from(fraction.len()).ok()?;
    Some(sign * value * 2f64.powi(exponent.checked_sub(places.checked_mul(4)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn formats_like_printf() {
        for (d, want) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.10000000000000001"),
            (1.5, "1.5"),
            (-2.25, "-2.25"),
            (3.3, "3.2999999999999998"),
            (1e17, "1e+17"),
            (1e16, "10000000000000000"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (1e-4, "0.0001"),
            (1e-5, "1.0000000000000001e-05"),
            (1e300, "1.0000000000000001e+300"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(text(d), want);
        }
    }

    #[test]
    fn parses_like_strtod() {
        assert_eq!(parse(b"+1.5e3"), Some(1500.0));
        assert_eq!(parse(b"-inf"), Some(f64::NEG_INFINITY));
        assert_eq!(parse(b"Infinity"), Some(f64::INFINITY));
        assert_eq!(parse(b"0x10"), Some(16.0));
        assert_eq!(parse(b"-0x1.8p1"), Some(-3.0));
        for wrong in [&b"nan"[..], b"", b" 1", b"1 ", b"0x", b"1x"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(parse_weight(b""), Some(0.0));
        assert_eq!(parse_weight(b" 2"), Some(2.0));
        assert_eq!(parse_weight(b"7\0x"), Some(7.0));
        assert_eq!(parse_weight(b"1e999"), None);
        assert_eq!(parse_weight(b"inf"), Some(f64::INFINITY));
        assert_eq!(parse_weight(b"x"), None);
    }

    proptest! {
        #[test]
        fn formatted_doubles_parse_back(d in any::<f64>().prop_filter("a number", |d| !d.is_nan())) {
            prop_assert_eq!(parse(text(d).as_bytes()).map(f64::to_bits), Some(d.to_bits()));
        }
    }
}
