//! Logic next to the data: a leader board whose two halves, scores and ranks, change together and without a conflict.
use commonhold::{Dict, List, Manager, Process, Transaction};

type Board = (Dict<String, u64>, List<String>);

/// Adds to a player's score and keeps the ranking in order. Runs beside the manager, alone: nobody sees it half done.
fn score(tx: &Transaction<'_>, ((scores, ranking), player, points): (Board, String, u64)) -> commonhold::Result<u64> {
    let total = tx.add(&scores, &player, points)?;
    let len = tx.len(&ranking)?;
    let mut place = len;
    for at in 0..len {
        let other = tx.get(&ranking, at)?.map_or_else(String::new, |name| name.as_str().to_owned());
        if other == player {
            place = at;
            break;
        }
    }
    if place == len {
        tx.push(&ranking, &player)?;
    }
    // Upwards, past everybody with less.
    while place > 0 {
        let above = tx.get(&ranking, place - 1)?.map_or_else(String::new, |name| name.as_str().to_owned());
        if tx.get(&scores, &above)?.map_or(0, |points| *points) >= total {
            break;
        }
        tx.set_at(&ranking, place - 1, &player)?;
        tx.set_at(&ranking, place, &above)?;
        place -= 1;
    }
    Ok(place as u64 + 1)
}

fn play(board: Board, player: String, rounds: u64) -> commonhold::Result<u64> {
    let manager = board.0.session()?;
    let mut place = 0;
    for round in 1..=rounds {
        place = manager.run(score, (board.clone(), player.clone(), round))?;
    }
    Ok(place)
}

fn main() -> commonhold::Result<()> {
    commonhold::init();
    let manager = Manager::start()?;
    let board: Board = (manager.dict([])?, manager.list([])?);
    let players = [("ada", 12u64), ("bob", 9), ("eve", 10)];
    let games = players.map(|(player, rounds)| Process::spawn(play, (board.clone(), player.to_string(), rounds)));
    for game in games {
        game?.join()??;
    }
    let now = manager.snapshot()?;
    for (place, player) in (1..).zip(board.1.at(&now)) {
        println!("{place}. {} {}", player.as_str(), board.0.at(&now).get(player.as_str()).map_or(0, |points| *points));
    }
    Ok(())
}
