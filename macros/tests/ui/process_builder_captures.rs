use commonhold::Process;

fn main() {
    let name = 'x';
    let _ = Process::builder().daemon(true).spawn(move || name.is_alphabetic(), ());
}
