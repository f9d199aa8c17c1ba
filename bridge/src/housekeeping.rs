//! Forgets by age what is of no use any more: the rules, and the rounds in which they are applied.

use std::{convert::Infallible, time::Duration};

use crate::{
    clock::Clock,
    store::{Database, StoreError, Transaction},
};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(6 * 60 * 60);

/// The first look comes when the machine's clock has been set.
const FIRST_AFTER: Duration = Duration::from_secs(10 * 60);

/// A clock that is further ahead of the newest date, or behind it, may be wrong: nothing is
/// forgotten.
const LONGEST_PAUSE_DAYS: i64 = 30;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A homeserver repeats a transaction, and an XMPP server a stanza, for days at most.
const EVENTS_DAYS: i64 = 30;

/// Reports of delivery come within days; a year leaves room for what refers to old messages.
const MESSAGES_DAYS: i64 = 365;

/// Clients replace a room key after a week at the latest, if they are not told otherwise. What is
/// held is decrypted again at each try, so its key stays this much longer than anything is held.
const ROOM_KEYS_DAYS: i64 = 90;

/// Looks again and again. `hold` is the longest that messages are held.
pub async fn keep_house(db: &Database, clock: &dyn Clock, hold: Duration) -> Infallible {
    tokio::time::sleep(FIRST_AFTER).await;
    loop {
        if let Err(error) = look_once(db, clock, hold).await {
            tracing::warn!(error = %crate::error_chain(&error), "housekeeping.failed");
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// One round, unless the clock was set of late.
///
/// # Errors
/// When the database failed: nothing was forgotten.
pub async fn look_once(db: &Database, clock: &dyn Clock, hold: Duration) -> Result<(), StoreError> {
    if !clock.is_settled() {
        return Ok(());
    }
    let now_ms = i64::try_from(clock.now_ms()).unwrap_or(i64::MAX);
    let hold_ms = i64::try_from(hold.as_millis()).unwrap_or(i64::MAX);
    let before = |days: i64| now_ms.saturating_sub(days.saturating_mul(DAY_MS));
    let mut tx = db.begin().await?;
    let newest_ms = tx.housekeeping().newest().await?;
    if newest_ms > now_ms {
        return keep_to_the_clock(tx, clock, now_ms, newest_ms).await;
    }
    tx.housekeeping().date(now_ms).await?;
    if newest_ms < before(LONGEST_PAUSE_DAYS) {
        return tx.commit().await;
    }
    let events = tx.matrix_inbox().purge_done(before(EVENTS_DAYS)).await?;
    let stanzas = tx.xmpp_inbox().purge_done(before(EVENTS_DAYS)).await?;
    let keys_ms = before(ROOM_KEYS_DAYS).saturating_sub(hold_ms);
    let forgotten = tx.housekeeping().forget(before(MESSAGES_DAYS), keys_ms).await?;
    tx.commit().await?;
    tracing::debug!(events, stanzas, ?forgotten, "housekeeping.done");
    Ok(())
}

/// A round that finds dates later than now. Either the clock is behind or it was ahead once; who is right, the clock
/// shows by going on for a day.
async fn keep_to_the_clock(
    mut tx: Transaction,
    clock: &dyn Clock,
    now_ms: i64,
    newest_ms: i64,
) -> Result<(), StoreError> {
    let mut housekeeping = tx.housekeeping();
    if clock.is_proven() {
        housekeeping.bring_back(now_ms).await?;
        housekeeping.date(now_ms).await?;
        tx.commit().await?;
        tracing::warn!(
            "housekeeping.dates.ahead: the clock was ahead once; what was dated then is kept as if it had come now"
        );
        return Ok(());
    }
    housekeeping.date(newest_ms).await?;
    tracing::info!("housekeeping.put_off: dates in the database are later than now");
    tx.commit().await
}
