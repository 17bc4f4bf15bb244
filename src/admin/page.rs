//! The status page: one HTML document with inline style and script, and headers that restrict it to
//! what it needs. The document itself contains no data; its script fetches that.

use std::sync::LazyLock;

use hyper::header::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

/// The markup, with one empty element each for style and script.
const MARKUP: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// The document.
pub(super) static PAGE: LazyLock<String> = LazyLock::new(|| {
    MARKUP
        .replace("<style></style>", &format!("<style>{STYLE}</style>"))
        .replace("<script></script>", &format!("<script>{SCRIPT}</script>"))
});

/// Content security policy: this style and this script only, allowed by their hashes; requests to
/// slotway only; no embedding in frames.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let text = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
});

/// Response headers of the document.
pub fn headers() -> [(HeaderName, HeaderValue); 3] {
    let name = HeaderName::from_static;
    [
        (name("content-security-policy"), POLICY.clone()),
        (name("x-content-type-options"), HeaderValue::from_static("nosniff")),
        (name("referrer-policy"), HeaderValue::from_static("no-referrer")),
    ]
}

/// A hash source for the policy, of the content of an element.
fn hash(text: &str) -> String {
    format!("sha256-{}", base64(&Sha256::digest(text.as_bytes())))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |n: usize| u32::from(three.get(n).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) as usize & 63;
            let known = digit <= three.len();
            text.push(if known { DIGITS.get(value).map_or('=', |d| char::from(*d)) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_standard_digits_and_padding() {
        for (text, wanted) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(base64(text.as_bytes()), wanted);
        }
        assert_eq!(hash(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }

    #[test]
    fn the_page_is_complete_and_needs_no_other_host() {
        assert!(PAGE.contains(STYLE) && PAGE.contains(SCRIPT));
        for elsewhere in ["http://", "https://", "src=\"", "@import", "innerHTML", "eval("] {
            let own = "http://www.w3.org/2000/svg";
            assert!(!PAGE.replace(own, "").contains(elsewhere), "{elsewhere}");
        }
        assert!(!SCRIPT.contains("</script") && !STYLE.contains("</style"));
    }
}
