//! A module's bytes from its file, never more than its limit: a wrong path may name anything. It must not
//! know what is in them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::bail;

/// What is larger is refused before it is read, as far as its size can be told beforehand.
pub(super) fn read(path: &Path, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    read_open(&File::open(path)?, bytes_max)
}

pub(super) fn read_open(file: &File, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let meta = file.metadata()?;
    if meta.is_dir() {
        bail!("it is a folder");
    }
    let limit = bytes_max as u64;
    let too_large = |size: String| {
        anyhow::anyhow!(
            "it is {size}, more than the limit of {bytes_max} bytes (limits.module_size)"
        )
    };
    if meta.len() > limit {
        return Err(too_large(format!("{} bytes", meta.len())));
    }
    // A device or a pipe does not know its size, and a file may grow meanwhile.
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(too_large("larger than it said".to_owned()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.wasm");
        std::fs::write(&path, [1; 100]).unwrap();
        assert_eq!(read(&path, 100).unwrap(), [1; 100]);
        let error = read(&path, 99).unwrap_err().to_string();
        assert!(
            error.contains("100 bytes") && error.contains("module_size"),
            "{error}"
        );
        // It has no size and no end.
        let endless = read(Path::new("/dev/zero"), 1 << 20)
            .unwrap_err()
            .to_string();
        assert!(endless.contains("limit of 1048576"), "{endless}");
        assert!(read(dir.path(), 100).is_err());
        // A file of 1 TiB that takes no place: reading it would fail otherwise.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let sparse = read(&path, 1 << 20).unwrap_err().to_string();
        assert!(sparse.contains("1099511627776 bytes"), "{sparse}");
    }
}
