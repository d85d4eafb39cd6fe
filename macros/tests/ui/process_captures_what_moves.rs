use commonhold::Process;

fn main() {
    let name = String::from("ada");
    let _ = Process::spawn(move || name.len() as u64, ());
}
