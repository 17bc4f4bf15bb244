//! Names of upstreams.

/// The name of the upstream that `seeds` and `[upstream]` describe.
pub const MAIN: &str = "main";
/// The longest name of an upstream, in bytes.
const NAME_MAX: usize = 32;

/// Whether `name` may be the name of an upstream.
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

/// The error for what is no name of an upstream.
pub(super) fn not_a_name(name: &str) -> String {
    format!(
        "\"{name}\" is no name of an upstream; write 1 to {NAME_MAX} of a to z, 0 to 9, _ and -"
    )
}
