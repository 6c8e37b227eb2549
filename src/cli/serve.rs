//! `serve`: starts everything.

use super::Failure;
use crate::config::{Config, LoadSource};

/// Runs the gateway until it is told to stop. `source` is read again at a reload.
pub(super) fn serve(config: Config, source: LoadSource) -> Result<(), Failure> {
    let _ = (config, source);
    Err(Failure::Usage("this build cannot serve yet", Vec::new()))
}
