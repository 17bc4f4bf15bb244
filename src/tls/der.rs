//! What slotway reads in a certificate itself: names and the day it ends. No checks: whether a
//! certificate is to be believed is rustls's to say.
//!
//! X.509 in DER is tag, length, value, one in another (RFC 5280, 4.1). Certificates come from the
//! other side, so nothing here trusts a length.

use std::borrow::Cow;

const INTEGER: u8 = 0x02;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version, in front of everything; missing in version 1.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 4, 3];
/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 29, 17];
/// In a subject alternative name: an e-mail address, a DNS name, a URI.
const NAMES: [u8; 3] = [0x81, 0x82, 0x86];

/// One thing and what comes behind it.
struct Item<'a> {
    tag: u8,
    value: &'a [u8],
    rest: &'a [u8],
}

fn item(bytes: &[u8]) -> Option<Item<'_>> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&first, mut bytes) = bytes.split_first()?;
    let mut len = usize::from(first);
    if first >= 0x80 {
        // No certificate has a length of more than four bytes.
        let (digits, rest) = bytes.split_at_checked(usize::from(first & 0x7f))?;
        if digits.is_empty() || digits.len() > 4 {
            return None;
        }
        len = digits.iter().fold(0, |len, &digit| len << 8 | usize::from(digit));
        bytes = rest;
    }
    let (value, rest) = bytes.split_at_checked(len)?;
    Some(Item { tag, value, rest })
}

/// The value of the first thing, if it has this tag.
fn inside(bytes: &[u8], tag: u8) -> Option<Item<'_>> {
    item(bytes).filter(|item| item.tag == tag)
}

/// All things, up to one that is not whole.
fn items(mut bytes: &[u8]) -> impl Iterator<Item = Item<'_>> {
    std::iter::from_fn(move || {
        let next = item(bytes)?;
        bytes = next.rest;
        Some(next)
    })
}

/// The parts that are of interest.
struct Parts<'a> {
    validity: &'a [u8],
    subject: &'a [u8],
    extensions: &'a [u8],
}

fn parts(cert: &[u8]) -> Option<Parts<'_>> {
    let signed = inside(inside(cert, SEQUENCE)?.value, SEQUENCE)?.value;
    let version = inside(signed, VERSION);
    let serial = inside(version.map_or(signed, |v| v.rest), INTEGER)?;
    let algorithm = inside(serial.rest, SEQUENCE)?;
    let issuer = inside(algorithm.rest, SEQUENCE)?;
    let validity = inside(issuer.rest, SEQUENCE)?;
    let subject = inside(validity.rest, SEQUENCE)?;
    let mut rest = items(subject.rest);
    let extensions = rest.find(|item| item.tag == EXTENSIONS);
    let extensions = extensions.and_then(|e| inside(e.value, SEQUENCE)).map(|e| e.value);
    Some(Parts {
        validity: validity.value,
        subject: subject.value,
        extensions: extensions.unwrap_or_default(),
    })
}

/// The subject's common name. With several it has none: which of them is meant cannot be known, and
/// somebody might be let in as who he is not.
pub fn common_name(cert: &[u8]) -> Option<Cow<'_, str>> {
    let sets = items(parts(cert)?.subject).filter(|set| set.tag == SET);
    // A set has several attributes now and then.
    let pairs = sets.flat_map(|set| items(set.value)).filter(|pair| pair.tag == SEQUENCE);
    let mut names = pairs.filter_map(|pair| {
        let kind = inside(pair.value, OID).filter(|kind| kind.value == COMMON_NAME)?;
        Some(text(&item(kind.rest)?))
    });
    let name = names.next()?;
    name.filter(|_| names.next().is_none())
}

/// A string of one of the kinds that names are written in.
fn text<'a>(item: &Item<'a>) -> Option<Cow<'a, str>> {
    match item.tag {
        // UTF8String, PrintableString, TeletexString (as everybody writes it), IA5String
        0x0c | 0x13 | 0x14 | 0x16 => Some(std::str::from_utf8(item.value).ok()?.into()),
        // BMPString
        0x1e => {
            let units = item.value.chunks_exact(2).map(|pair| match pair {
                [high, low] => u16::from_be_bytes([*high, *low]),
                _ => 0,
            });
            Some(String::from_utf16(&units.collect::<Vec<_>>()).ok()?.into())
        }
        _ => None,
    }
}

/// The subject alternative names that are a DNS name, an e-mail address or a URI, in order.
pub fn alternative_names(cert: &[u8]) -> Vec<&str> {
    let Some(parts) = parts(cert) else { return Vec::new() };
    let names = items(parts.extensions).find_map(|extension| {
        let kind = inside(extension.value, OID).filter(|kind| kind.value == SUBJECT_ALT_NAME)?;
        // Between the two a BOOLEAN may say that it is critical.
        let octets = items(kind.rest).find(|item| item.tag == 0x04)?;
        Some(inside(octets.value, SEQUENCE)?.value)
    });
    let named = items(names.unwrap_or_default()).filter(|name| NAMES.contains(&name.tag));
    named.filter_map(|name| std::str::from_utf8(name.value).ok()).collect()
}

/// When it ends, in seconds since 1970.
pub fn not_after(cert: &[u8]) -> Option<i64> {
    let not_before = item(parts(cert)?.validity)?;
    let end = item(not_before.rest)?;
    let text = std::str::from_utf8(end.value).ok()?.strip_suffix('Z')?;
    let (year, rest) = match end.tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let two = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let (month, day) = (two(0)?, two(2)?);
    let seconds = two(4)? * 3600 + two(6)? * 60 + two(8)?;
    Some(days(year, month, day) * 86_400 + seconds)
}

/// Days since 1970 of a day of the Gregorian calendar. Years begin with March, so that the day
/// that some have more is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let before = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    before + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn names_and_the_end_are_read() {
        let cert = certificate(|p| {
            p.distinguished_name.push(DnType::OrganizationName, "Düsseldorf");
            p.distinguished_name.push(DnType::CommonName, "app-1");
            p.subject_alt_names = vec![
                SanType::IpAddress([10, 0, 0, 1].into()),
                SanType::URI("spiffe://a/b".try_into().unwrap()),
                SanType::DnsName("app.example".try_into().unwrap()),
            ];
            p.not_after = date_time_ymd(2031, 2, 28);
        });
        assert_eq!(common_name(&cert).as_deref(), Some("app-1"));
        assert_eq!(alternative_names(&cert), ["spiffe://a/b", "app.example"]);
        assert_eq!(not_after(&cert), Some(1_930_003_200));
        let late = certificate(|p| p.not_after = date_time_ymd(2400, 3, 1));
        assert_eq!(not_after(&late), Some(13_574_649_600));
        assert_eq!(common_name(&late), None);
        assert!(alternative_names(&late).is_empty());
    }

    #[test]
    fn a_name_is_looked_for_everywhere_and_has_to_be_the_only_one() {
        fn of(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
            let value = parts.concat();
            [vec![tag, 0x82, (value.len() >> 8) as u8, value.len() as u8], value].concat()
        }
        let attribute = |kind: &[u8], value: &str| {
            let parts = [of(OID, &[kind.to_vec()]), of(0x0c, &[value.as_bytes().to_vec()])];
            of(SEQUENCE, &parts)
        };
        let cert = |subject: &[Vec<u8>]| {
            let any = of(SEQUENCE, &[]);
            let parts =
                [of(INTEGER, &[vec![1]]), any.clone(), any.clone(), any, of(SEQUENCE, subject)];
            of(SEQUENCE, &[of(SEQUENCE, &parts)])
        };
        let (unit, cn) = (attribute(&[0x55, 4, 11], "unit"), |name| attribute(COMMON_NAME, name));
        let second = cert(&[of(SET, &[unit.clone(), cn("app")])]);
        assert_eq!(common_name(&second).as_deref(), Some("app"));
        let two = cert(&[of(SET, &[cn("app"), cn("admin")])]);
        assert_eq!(common_name(&two), None, "in one set");
        let two = cert(&[of(SET, &[cn("app")]), of(SET, &[unit, cn("admin")])]);
        assert_eq!(common_name(&two), None, "in two");
        // One that cannot be read is one.
        let odd = of(SEQUENCE, &[of(OID, &[COMMON_NAME.to_vec()]), of(0x04, &[vec![1]])]);
        assert_eq!(common_name(&cert(&[of(SET, &[odd]), of(SET, &[cn("app")])])), None);
    }

    #[test]
    fn days_are_counted_as_calendars_do() {
        assert_eq!((days(1970, 1, 1), days(2000, 2, 29), days(2026, 11, 22)), (0, 11_016, 20_779));
    }

    proptest! {
        #[test]
        fn broken_certificates_are_survived(
            cut in 0usize..600,
            changes in proptest::collection::vec((0usize..600, any::<u8>()), 0..8),
        ) {
            let mut cert = certificate(|p| p.distinguished_name.push(DnType::CommonName, "x"));
            for (at, byte) in changes {
                if let Some(place) = cert.get_mut(at) {
                    *place = byte;
                }
            }
            cert.truncate(cut);
            let _ = (common_name(&cert), alternative_names(&cert), not_after(&cert));
        }
    }
}
