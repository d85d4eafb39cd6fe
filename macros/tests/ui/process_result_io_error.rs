use commonhold::Process;

fn main() {
    let _ = Process::spawn(|path: String| std::fs::read_to_string(path), "a".to_string());
}
