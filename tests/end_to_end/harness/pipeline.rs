//! `driftline serve` under way.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use serde_json::Value;

use super::{command, told};

/// `driftline serve` under way; killed when it is dropped.
pub(crate) struct Pipeline {
    pub(crate) dir: PathBuf,
    pub(crate) url: String,
    child: Child,
    said: Option<JoinHandle<String>>,
}

impl Pipeline {
    /// Starts on a free port, with settings (TOML below the gateway's) and environment.
    pub(crate) fn start(dir: &Path, settings: &str, environment: &[(&str, &str)]) -> Self {
        Self::try_start(dir, settings, environment)
            .unwrap_or_else(|said| panic!("serve ended before it listened:\n{said}"))
    }

    /// The same, where it may end before it listens; then what it said.
    pub(crate) fn try_start(
        dir: &Path,
        settings: &str,
        environment: &[(&str, &str)],
    ) -> Result<Self, String> {
        std::fs::create_dir_all(dir).unwrap();
        let file = dir.join("serve.toml");
        std::fs::write(&file, settings).unwrap();
        let mut child = command(dir)
            .arg("--config")
            .arg(&file)
            .arg("serve")
            .env("DRIFTLINE_GATEWAY__LISTEN", "127.0.0.1:0")
            .env("NO_COLOR", "1")
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (tell, told) = mpsc::channel();
        let said = std::thread::spawn(move || {
            let mut text = String::new();
            for line in lines.map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("gateway listens address=") {
                    // Nobody asks any more when the test has gone on.
                    let _ = tell.send(format!("http://{}", address.trim()));
                }
                text.push_str(&line);
                text.push('\n');
            }
            text
        });
        match told.recv() {
            Ok(url) => Ok(Self {
                dir: dir.to_owned(),
                url,
                child,
                said: Some(said),
            }),
            Err(_) => {
                child.wait().unwrap();
                Err(said.join().unwrap())
            }
        }
    }

    /// The device's answer, with its token.
    pub(crate) fn add_device(&self, name: &str, arguments: &[&str]) -> Value {
        let mut all = vec!["device", "add", name];
        all.extend_from_slice(arguments);
        told(&self.dir, &all)
    }

    /// Asks it to end, and waits; how it ended, and what it had said.
    pub(crate) fn terminate(mut self) -> (ExitStatus, String) {
        let asked = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(asked.success());
        let status = self.child.wait().unwrap();
        (status, self.said.take().unwrap().join().unwrap())
    }

    /// Whether it has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.said.take().unwrap().join().unwrap()
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
