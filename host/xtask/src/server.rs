//! A server of our own: private on a socket for the demo, or on a port for whoever wants to try things.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::say;
use crate::servers::{self, Binary};

/// In the foreground, on a port, with nothing kept.
pub(crate) fn run(port: u16) -> anyhow::Result<()> {
    let binary = servers::any()?;
    say(&format!(
        "{} on redis://127.0.0.1:{port}; nothing is kept; end with Ctrl-C",
        binary.version
    ));
    let port = port.to_string();
    let status = Command::new(&binary.path)
        .args([
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ])
        .status()
        .context("starting the server")?;
    // Ctrl-C reaches both of us; the server's own status is of no interest then.
    if status.code().is_some_and(|code| code != 0) {
        bail!("the server ended with {status}");
    }
    Ok(())
}

/// Reached by its socket alone; ends when it is dropped.
pub(crate) struct Private {
    child: Child,
    socket: PathBuf,
    dir: PathBuf,
}

impl Private {
    pub(crate) fn start(binary: &Binary) -> anyhow::Result<Private> {
        // A socket's path may have about 100 bytes: the temporary folder's is short.
        let dir = std::env::temp_dir().join(format!("segmenter-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let socket = dir.join("redis.sock");
        let child = Command::new(&binary.path)
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "no",
                "--unixsocket",
            ])
            .arg(&socket)
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting the server")?;
        let mut server = Private { child, socket, dir };
        server.wait()?;
        Ok(server)
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(&self.socket).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended with {status} before it was up");
            }
            if Instant::now() > until {
                bail!("the server was not up within 20 s");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket.display())
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
