//! Names and expiry dates of certificates. Verification is rustls's.

use x509_parser::asn1_rs::Tag;
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, GeneralName, X509Certificate};

fn parsed(cert: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(cert).ok().map(|(_, cert)| cert)
}

/// The common name of the subject; `None` where there are several, because the wrong one might log
/// a client in as somebody else.
pub(super) fn common_name(cert: &[u8]) -> Option<String> {
    let cert = parsed(cert)?;
    let mut names = cert.subject().iter_common_name();
    let name = names.next()?;
    names.next().is_none().then(|| text(name)).flatten()
}

/// The value of a name, for the string types that names have.
fn text(name: &AttributeTypeAndValue<'_>) -> Option<String> {
    let value = name.attr_value();
    match value.tag() {
        // In practice Teletex strings are written as UTF-8.
        Tag::Utf8String | Tag::PrintableString | Tag::TeletexString | Tag::Ia5String => {
            Some(std::str::from_utf8(value.data).ok()?.to_owned())
        }
        Tag::BmpString => {
            let (units, _) = value.data.as_chunks::<2>();
            let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
            String::from_utf16(&units).ok()
        }
        _ => None,
    }
}

/// The subject alternative names that are DNS names, e-mail addresses or URIs, in order.
pub(super) fn alternative_names(cert: &[u8]) -> Vec<String> {
    let Some(cert) = parsed(cert) else { return Vec::new() };
    let Ok(Some(names)) = cert.subject_alternative_name() else { return Vec::new() };
    let names = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            Some((*name).to_owned())
        }
        _ => None,
    });
    names.collect()
}

/// The expiry date, seconds since 1970.
pub fn not_after(cert: &[u8]) -> Option<i64> {
    Some(parsed(cert)?.validity().not_after.timestamp())
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
        const OID: u8 = 0x06;
        const SEQUENCE: u8 = 0x30;
        const SET: u8 = 0x31;
        const COMMON_NAME: &[u8] = &[0x55, 4, 3];
        fn of(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
            let value = parts.concat();
            [vec![tag, 0x82, (value.len() >> 8) as u8, value.len() as u8], value].concat()
        }
        let attribute = |kind: &[u8], value: &str| {
            let parts = [of(OID, &[kind.to_vec()]), of(0x0c, &[value.as_bytes().to_vec()])];
            of(SEQUENCE, &parts)
        };
        let cert = |subject: &[Vec<u8>]| {
            let algorithm = of(SEQUENCE, &[of(OID, &[vec![0x2a, 3]])]);
            let bits = of(0x03, &[vec![0, 1]]);
            let day = of(0x17, &[b"310228000000Z".to_vec()]);
            let signed = [
                of(0x02, &[vec![1]]),
                algorithm.clone(),
                of(SEQUENCE, &[]),
                of(SEQUENCE, &[day.clone(), day]),
                of(SEQUENCE, subject),
                of(SEQUENCE, &[algorithm.clone(), bits.clone()]),
            ];
            of(SEQUENCE, &[of(SEQUENCE, &signed), algorithm, bits])
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
