//! What several promises need: real repositories, a real Git server with TLS and passwords, a real sshd.

pub mod git;
pub mod git_https;
pub mod sshd;
