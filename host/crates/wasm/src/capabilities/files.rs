//! `wasi:filesystem`: the granted folders. A path cannot leave its folder, by `..` or by a link: each part
//! of it is opened beneath the one before. A shadow reads them, whatever was granted.

use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use crate::grants::Folder;

pub(super) fn give(
    wasi: &mut WasiCtxBuilder,
    folders: &[Folder],
    shadow: bool,
) -> Result<(), String> {
    for Folder { host, guest, write } in folders {
        let may = if *write && !shadow {
            FsPerms::ReadWrite
        } else {
            FsPerms::ReadOnly
        };
        wasi.preopened_dir(host, guest, may).map_err(|e| {
            let host = host.display();
            format!("opening the granted folder {host}: {}", e.root_cause())
        })?;
    }
    Ok(())
}
