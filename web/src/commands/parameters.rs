//! `sealyard parameters`: proof parameters of a devnet.

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use sealyard_filecoin::params::{DevnetParams, Which};

/// The network that the parameters are for. Their seed is public, so its proofs can be forged.
const NETWORK: &str = "sealyard-devnet-demo";

/// Makes the missing parameters, with a progress bar. A second call is instant.
pub fn make_parameters(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    let params = DevnetParams::open(&dir.canonicalize()?, NETWORK)?;
    for which in Which::ALL {
        if params.present(which)? {
            continue;
        }
        let bar = ProgressBar::new(100);
        let style = ProgressStyle::with_template(
            "  {msg:24} {bar:30} {percent:>3} %  {elapsed} gone, {eta} to go",
        )?;
        bar.set_style(style);
        bar.set_message(format!("making {} parameters", which.name()));
        params.ensure(which, &|progress| {
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        })?;
        bar.finish();
    }
    Ok(())
}
