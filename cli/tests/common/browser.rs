//! A real browser without a window: what a page looks like once its scripts ran, and its picture.

#![allow(dead_code, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A Chromium.
pub struct Browser {
    program: PathBuf,
}

impl Browser {
    /// The one that `OCTET_TEST_CHROMIUM` names, or one of the usual names. Says what is skipped where there is none.
    pub fn find(what: &str) -> Option<Self> {
        let named = std::env::var_os("OCTET_TEST_CHROMIUM").map(PathBuf::from);
        let usual = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
        let programs = named.into_iter().chain(usual.map(PathBuf::from));
        for program in programs {
            let asked = Command::new(&program).arg("--version").stderr(Stdio::null()).output();
            if asked.is_ok_and(|output| output.status.success()) {
                return Some(Self { program });
            }
        }
        eprintln!("SKIPPED: {what}: no chromium here, and OCTET_TEST_CHROMIUM names none");
        None
    }

    /// What the page at `file` (with a fragment, perhaps) has become once it was loaded and its scripts ran.
    pub fn dom(&self, file: &Path, fragment: &str) -> String {
        let url = format!("file://{}{fragment}", file.display());
        String::from_utf8(self.run(&["--dump-dom", &url])).unwrap()
    }

    /// Takes a picture of the page's upper part, or of more, at a width.
    pub fn picture(&self, file: &Path, picture: &Path, [width, height]: [u32; 2], dark: bool) {
        let url = format!("file://{}", file.display());
        let size = format!("--window-size={width},{height}");
        let shot = format!("--screenshot={}", picture.display());
        let mut arguments = vec!["--hide-scrollbars", &size, &shot];
        if dark {
            arguments.push("--blink-settings=preferredColorScheme=0");
        }
        arguments.push(&url);
        self.run(&arguments);
    }

    fn run(&self, arguments: &[&str]) -> Vec<u8> {
        let home = tempfile::tempdir().unwrap();
        let profile = format!("--user-data-dir={}", home.path().display());
        // Without its sandbox, since tests run as root in containers; the pages are our own.
        let output = Command::new("timeout")
            .arg("120")
            .arg(&self.program)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-dev-shm-usage", "--disable-background-networking", &profile])
            .args(["--virtual-time-budget=5000", "--force-device-scale-factor=1"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "chromium {arguments:?}: {errors}");
        output.stdout
    }
}

/// Width and height of a PNG, from its header.
pub fn png_size(file: &Path) -> [u32; 2] {
    let bytes = std::fs::read(file).unwrap();
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "{} is no PNG", file.display());
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    [number(16), number(20)]
}
