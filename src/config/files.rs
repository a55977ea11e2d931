//! Reads the files that settings name.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::FILE_BYTES_MAX;
use crate::auth::jwks;

/// Bytes that are read of any such file: a key set may be the longest.
const BYTES_MAX: usize = if jwks::BYTES_MAX > FILE_BYTES_MAX {
    jwks::BYTES_MAX
} else {
    FILE_BYTES_MAX
};

/// A whole file as text, as [`Read`](super::Read) wants it. Whatever is named, a device too, no more is read than
/// the longest of these files may have; the error says why it is not taken.
pub fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    if bytes.len() > BYTES_MAX {
        return Err(format!("it has more than {BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_texts_and_never_without_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let with = |content: &[u8]| {
            std::fs::write(&path, content).expect("a file");
            read(&path)
        };
        assert_eq!(with("Grüße\n".as_bytes()).as_deref(), Ok("Grüße\n"));
        assert_eq!(with(b"\xff"), Err("it is not UTF-8".to_owned()));
        let most = "é".repeat(BYTES_MAX / 2);
        assert_eq!(with(most.as_bytes()).as_deref(), Ok(&*most));
        let too_large = Err(format!("it has more than {BYTES_MAX} bytes"));
        // Cut at the bound, its last character would be half of one.
        assert_eq!(with(format!("a{most}").as_bytes()), too_large);
        assert_eq!(read(Path::new("/dev/zero")), too_large);
        assert!(
            read(&folder.path().join("none")).is_err_and(|error| error.contains("No such file"))
        );
    }
}
