use commonhold::Process;

fn double(x: u64) -> u64 {
    x * 2
}

fn main() {
    let _ = Process::spawn(double, "one".to_string());
}
