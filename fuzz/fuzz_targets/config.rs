//! The configuration: no text, variable or flag panics; what is accepted is printed as a file that
//! is accepted and means the same.
#![no_main]

use std::io::Write;
use std::path::PathBuf;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use slotway::config::{Flag, KEYS, Loaded, Sources, effective_toml, load};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Keys by their number, given as variables or flags.
    set: Vec<(u8, bool, &'a str)>,
    text: &'a str,
}

fuzz_target!(|input: Input| {
    let file = written(input.text);
    let mut sources = Sources { file: Some(file.path().into()), ..Sources::default() };
    for (key, flag, value) in &input.set {
        let key = &KEYS[usize::from(*key) % KEYS.len()];
        if *flag {
            sources.flags.push(Flag::Set(format!("{}={value}", key.path)));
        } else {
            sources.env.push((key.variable().into(), (*value).into()));
        }
    }
    match load(&sources) {
        Ok(loaded) => round_trip(&loaded),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

fn written(text: &str) -> tempfile::NamedTempFile {
    // In memory where the machine has such a folder: a file is written a thousand times a second.
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let mut file = tempfile::NamedTempFile::new_in(folder).expect("a temporary file");
    file.write_all(text.as_bytes()).expect("a temporary file");
    file
}

/// The password is masked there, so it is left out of the comparison.
fn round_trip(loaded: &Loaded) {
    let text = effective_toml(loaded);
    let file = written(&text);
    let sources = Sources { file: Some(file.path().into()), ..Sources::default() };
    let again = load(&sources);
    let mut again = again.unwrap_or_else(|e| panic!("{text}\n{e}")).config;
    again.upstream.password = loaded.config.upstream.password.clone();
    assert_eq!(again, loaded.config, "{text}");
}
