//! OpenSSH's sshd as a plain process on loopback, with a host key of its own, for the user who runs the tests.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server that stops when it is dropped.
pub struct Sshd {
    directory: TempDir,
    port: u16,
    child: Child,
}

impl Sshd {
    /// Starts one and waits until it answers.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        new_key(&path.join("host"));
        new_key(&path.join("client"));
        fs::copy(path.join("client.pub"), path.join("authorized_keys")).unwrap();
        // sshd of root insists on this directory, which a service manager would have made.
        if fs::metadata("/proc/self").map(|me| std::os::unix::fs::MetadataExt::uid(&me)).unwrap() == 0 {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        // Another process may take the port between our choice and sshd's start.
        for _ in 0..5 {
            let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            if let Some(child) = run(path, port) {
                return Self { directory, port, child };
            }
        }
        panic!("sshd does not start: {}", fs::read_to_string(path.join("log")).unwrap_or_default());
    }

    /// The URL of a directory of this machine.
    pub fn url(&self, path: &Path) -> String {
        format!("ssh://{}@127.0.0.1:{}{}", user(), self.port, path.display())
    }

    /// The key that it lets in.
    pub fn identity(&self) -> String {
        fs::read_to_string(self.directory.path().join("client")).unwrap()
    }

    /// A line of `known_hosts` for it.
    pub fn known_hosts(&self) -> String {
        host_line(self.port, &self.directory.path().join("host.pub"))
    }

    /// A line of `known_hosts` for its address with the key of somebody else.
    pub fn known_hosts_of_another(&self) -> String {
        let other = self.directory.path().join("other");
        new_key(&other);
        host_line(self.port, &other.with_extension("pub"))
    }

    /// A key that it does not let in.
    pub fn identity_of_another(&self) -> String {
        let stranger = self.directory.path().join("stranger");
        new_key(&stranger);
        fs::read_to_string(stranger).unwrap()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(directory: &Path, port: u16) -> Option<Child> {
    let config = directory.join("sshd_config");
    let settings = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized_keys\nPidFile none\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
         AcceptEnv GIT_PROTOCOL\nLogLevel ERROR\nMaxStartups 100\n",
        directory.display()
    );
    fs::write(&config, settings).unwrap();
    let log = fs::File::create(directory.join("log")).unwrap();
    let mut child = Command::new(program())
        .args(["-D", "-e", "-f"])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    while Instant::now() < limit && child.try_wait().unwrap().is_none() {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            let mut banner = [0; 4];
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            if stream.read_exact(&mut banner).is_ok() && &banner == b"SSH-" {
                return Some(child);
            }
        }
        std::thread::yield_now();
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

fn program() -> PathBuf {
    ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .expect("sshd is installed (package openssh-server)")
}

fn new_key(path: &Path) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(path)
        .stdin(Stdio::null())
        .status()
        .expect("ssh-keygen is installed (package openssh-client)");
    assert!(status.success());
}

fn host_line(port: u16, public: &Path) -> String {
    let public = fs::read_to_string(public).unwrap();
    let mut words = public.split(' ');
    format!("[127.0.0.1]:{port} {} {}\n", words.next().unwrap(), words.next().unwrap())
}

fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
