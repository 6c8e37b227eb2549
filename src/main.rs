//! The program: what the command line says.

use std::process::ExitCode;

// Records are built and dropped on every call; this allocator makes that several times cheaper than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    trust_gateway::cli::run()
}
