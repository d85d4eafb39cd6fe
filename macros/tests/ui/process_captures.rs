use commonhold::Process;

fn main() {
    let offset = 5u64;
    let _ = Process::spawn(move |x: u64| x + offset, 1);
}
