//! Types of one's own, transactions and snapshots: money moves between accounts, wholly or not at all.
//!
//! `cargo run --example accounts`
//!
//! `#[derive(Shared)]` is all that a type needs to live in shared memory. A value is read in place: the guard that `get` returns shows
//! the struct's fields without copying it.

use commonhold::{Dict, Error, List, Manager, Shared};

#[derive(Shared, Debug, PartialEq)]
struct Account {
    owner: String,
    balance: i64,
    tags: Vec<String>,
}

fn move_money(manager: &Manager, accounts: &Dict<String, Account>, log: &List<String>, amount: i64) -> commonhold::Result<()> {
    manager.transaction(|tx| {
        // All or nothing, over any containers of the manager; runs again if somebody else changes what it has read.
        let mut ada = tx.get(accounts, "ada")?.expect("ada has an account").to_owned();
        let mut bob = tx.get(accounts, "bob")?.expect("bob has an account").to_owned();
        if ada.balance < amount {
            return Err(Error::other(format!("ada has {}, which is less than {amount}", ada.balance)));
        }
        ada.balance -= amount;
        bob.balance += amount;
        tx.insert(accounts, "ada", &ada)?;
        tx.insert(accounts, "bob", &bob)?;
        tx.push(log, format!("ada -> bob: {amount}"))
    })
}

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let manager = Manager::start()?;
    let accounts = manager.dict::<String, Account>([])?;
    let log = manager.list::<String>([])?;
    let ada = Account { owner: "Ada".into(), balance: 100, tags: vec!["first".into()] };
    accounts.insert("ada", &ada)?;
    accounts.insert("bob", Account { owner: "Bob".into(), balance: 1, tags: vec![] })?;

    if let Some(account) = accounts.get("ada")? {
        println!("{} has {}, read in place", account.owner, account.balance);
        let own: Account = account.to_owned();
        assert_eq!(own, ada);
        assert_eq!(*account, own);
    }

    let before = manager.snapshot()?;
    move_money(&manager, &accounts, &log, 10)?;
    match move_money(&manager, &accounts, &log, 1000) {
        Ok(()) => println!("the bank is generous"),
        Err(error) => println!("not moved: {error}"),
    }

    let now = manager.snapshot()?;
    for (when, at) in [("before", &before), ("now", &now)] {
        let accounts = accounts.at(at);
        let total: i64 = accounts.values().map(|account| i64::from(account.balance)).sum();
        println!("{when}: {total} in {} accounts, {} moves", accounts.len(), log.at(at).len());
        for (name, account) in accounts.iter_ordered() {
            println!("  {name}: {account:?}");
        }
    }
    println!("{log}");
    Ok(())
}
