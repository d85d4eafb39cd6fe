use commonhold::Process;

fn start() -> std::time::Instant {
    std::time::Instant::now()
}

fn main() {
    let _ = Process::spawn(start, ());
}
