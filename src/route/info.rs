//! stub
/// stub
pub fn merge_info(parts: &[&[u8]], proxy: Option<&str>) -> Vec<u8> {
    let mut v = parts.first().map(|p| p.to_vec()).unwrap_or_default();
    v.extend_from_slice(proxy.unwrap_or_default().as_bytes());
    v
}
