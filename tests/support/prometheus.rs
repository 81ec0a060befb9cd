//! A real Prometheus as a plain process on loopback, scraping what a test serves.

use super::cluster::wait_until;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

/// Longer than it takes to start or to stop on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// A server that stops when it is dropped.
pub struct Prometheus {
    child: Process,
    port: u16,
    _directory: TempDir,
}

struct Process(Child);

impl Prometheus {
    /// Starts one that scrapes `/metrics` of an address four times a second, and waits until it answers.
    pub async fn start(target: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let config = format!(
            "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\nscrape_configs:\n- job_name: app\n  \
             honor_labels: true\n  static_configs: [{{targets: ['{target}']}}]\n"
        );
        fs::write(path.join("prometheus.yml"), config).unwrap();
        // Another process may take the port between our choice and its start: it then ends.
        for _ in 0..5 {
            let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            let log = fs::File::create(path.join("log")).unwrap();
            let child = Command::new("prometheus")
                .arg(format!("--config.file={}", path.join("prometheus.yml").display()))
                .arg(format!("--storage.tsdb.path={}", path.join("data").display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("prometheus is started; on Debian it is in the package prometheus");
            let child = Mutex::new(Process(child));
            let up = wait_until("Prometheus answers", LIMIT, || async {
                if child.lock().unwrap().0.try_wait().unwrap().is_some() {
                    return Ok(false);
                }
                let listens = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
                listens.map(|_| true).map_err(|error| error.to_string())
            });
            if up.await {
                return Self { child: child.into_inner().unwrap(), port, _directory: directory };
            }
        }
        panic!("prometheus does not start: {}", fs::read_to_string(path.join("log")).unwrap_or_default());
    }

    /// Its address.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Sends it a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.0.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Ends it as a service manager does, and waits until it has ended.
    pub fn stop(&mut self) {
        self.signal("TERM");
        self.child.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that is stopped takes no other signal.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
