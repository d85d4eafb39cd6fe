//! iceoryx2, the crate, in a program of its own (`benches/iceoryx2`): nobody who builds or tests this project builds it as well.
//! Publish-subscribe passes items one way, request-response is its method call.
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::asked::Asked;
use crate::rows::{DataSet, Row};
use crate::system::System;
use crate::workload::Plan;

/// Where the program is once it has been built.
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../iceoryx2/target/release/compare-iceoryx2");
/// Why it is not there.
pub const NOT_BUILT: &str = "its program has not been built: cargo build --release --manifest-path benches/iceoryx2/Cargo.toml";

/// The program at work.
pub struct Iceoryx2(Asked);

impl Iceoryx2 {
    /// Starts it. `None`: it has not been built.
    pub fn start() -> Result<Option<Self>> {
        Ok(Asked::start("compare-iceoryx2", &mut Command::new(Path::new(PROGRAM)))?.map(Iceoryx2))
    }
}

impl System for Iceoryx2 {
    fn has(&self, row: Row) -> bool {
        matches!(row, Row::Queue64 | Row::Queue4k | Row::Queue1m | Row::MethodCall64)
    }

    fn prepare(&mut self, _data: DataSet) -> Result<()> {
        Ok(())
    }

    fn run(&mut self, row: Row, plan: Plan) -> Result<Vec<f64>> {
        self.0.run(row, plan)
    }
}
