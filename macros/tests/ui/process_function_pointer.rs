use commonhold::Process;

fn double(x: u64) -> u64 {
    x * 2
}

fn main() {
    let function: fn(u64) -> u64 = double;
    let _ = Process::spawn(function, 1);
}
