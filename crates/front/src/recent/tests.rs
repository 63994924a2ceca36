use acme_store::{AuthorizationStatus, OrderStatus};
use tempfile::TempDir;
use tokio::sync::Notify;

use super::*;

/// A store whose next save holds its answer back, long after it has done its work.
struct Slow {
    store: sqlite::Acme,
    hold: parking_lot::Mutex<Option<Arc<Notify>>>,
    reads: std::sync::atomic::AtomicU32,
}

macro_rules! passed_on {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl AcmeStore for Slow {
            $(async fn $name(&self, $($argument: $type),*) -> Result<$answer, StoreError> {
                self.store.$name($($argument),*).await
            })*

            async fn authorizations(&self, ids: &[String]) -> Result<Vec<AuthorizationRow>, StoreError> {
                self.reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                self.store.authorizations(ids).await
            }

            async fn save(&self, units: Vec<Unit>) -> Result<Vec<SaveOutcome>, StoreError> {
                let hold = self.hold.lock().take();
                let outcomes = self.store.save(units).await;
                if let Some(hold) = hold {
                    hold.notify_one();
                    std::future::pending::<()>().await;
                }
                outcomes
            }

            async fn close(&self) {
                self.store.close().await;
            }
        }
    };
}

passed_on! {
    fn create_orders(orders: Vec<NewOrder>) -> Vec<CreateOutcome>;
    fn create_authorizations(authorizations: Vec<AuthorizationRow>) -> ();
    fn order(id: &str) -> Option<OrderRow>;
    fn orders_of_account(account: &str, now: Timestamp, page: &Page) -> Paged<OrderRow>;
    fn reusable_authorizations(account: &str, identifiers: &[Identifier], now: Timestamp) -> Vec<AuthorizationRow>;
    fn claim_processing(claim: &ProcessingClaim, lease: Duration) -> Vec<OrderRow>;
    fn pending(account: &str, now: Timestamp) -> PendingCounts;
    fn count(hits: Vec<Hit>) -> Vec<HitCount>;
    fn end_validations(ends: Vec<ValidationEnd>) -> ();
    fn failures(account: &str, identifiers: &[Identifier], limit: u32) -> Vec<FailureRow>;
    fn purge(before: Timestamp, now: Timestamp, limit: u32) -> Purged;
}

async fn scene() -> (TempDir, Arc<Slow>, Recent) {
    let folder = TempDir::new().unwrap();
    let store = sqlite::Acme::open(sqlite::Options::new(folder.path().join("acme.db"))).await.unwrap();
    let slow = Arc::new(Slow { store, hold: parking_lot::Mutex::new(None), reads: 0.into() });
    let recent = Recent::new(Arc::clone(&slow) as Arc<dyn AcmeStore>, 100);
    let created = recent.create_orders(vec![new_order()]).await.unwrap();
    assert_eq!(created, [CreateOutcome::Created]);
    (folder, slow, recent)
}

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_unix(seconds)
}

fn new_order() -> NewOrder {
    NewOrder {
        order: OrderRow {
            id: "order".to_owned(),
            directory: "open".to_owned(),
            account: "account".to_owned(),
            status: OrderStatus::Pending,
            authorizations: vec!["authorization".to_owned()],
            replaces: None,
            state: "{}".to_owned(),
            created_at: time(1),
            expires_at: time(9_999),
            lease_until_ms: None,
            version: 1,
        },
        authorizations: vec![AuthorizationRow {
            id: "authorization".to_owned(),
            directory: "open".to_owned(),
            account: "account".to_owned(),
            identifier: Identifier { value: "example.org".to_owned(), wildcard: false },
            status: AuthorizationStatus::Valid,
            state: "{}".to_owned(),
            created_at: time(1),
            expires_at: time(9_999),
            version: 1,
        }],
        bound: None,
    }
}

fn deactivation(expected: u64) -> Unit {
    Unit {
        orders: Vec::new(),
        authorizations: vec![AuthorizationChange {
            id: "authorization".to_owned(),
            expected,
            status: AuthorizationStatus::Deactivated,
            state: "{}".to_owned(),
            expires_at: time(9_999),
        }],
    }
}

async fn status(store: &dyn AcmeStore) -> (AuthorizationStatus, u64) {
    let rows = store.authorizations(&["authorization".to_owned()]).await.unwrap();
    (rows[0].status, rows[0].version)
}

#[tokio::test]
async fn what_was_written_is_not_read_again() {
    let (_folder, slow, recent) = scene().await;
    assert_eq!(status(&recent).await, (AuthorizationStatus::Valid, 1));
    assert_eq!(recent.save(vec![deactivation(1)]).await.unwrap(), [SaveOutcome::Saved]);
    assert_eq!(status(&recent).await, (AuthorizationStatus::Deactivated, 2));
    assert_eq!(recent.order("order").await.unwrap(), slow.store.order("order").await.unwrap());
    assert_eq!(slow.reads.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert_eq!(status(&slow.store).await, (AuthorizationStatus::Deactivated, 2));
}

#[tokio::test]
async fn a_conflict_forgets_what_it_was_about() {
    let (_folder, slow, recent) = scene().await;
    // Somebody else was first.
    assert_eq!(slow.store.save(vec![deactivation(1)]).await.unwrap(), [SaveOutcome::Saved]);
    assert_eq!(status(&recent).await, (AuthorizationStatus::Valid, 1));
    assert_eq!(recent.save(vec![deactivation(1)]).await.unwrap(), [SaveOutcome::Conflict]);
    assert_eq!(status(&recent).await, (AuthorizationStatus::Deactivated, 2));
}

/// A client that hangs up during a commit does not keep the commit from being seen.
#[tokio::test]
async fn a_save_whose_caller_went_away_is_forgotten() {
    let (_folder, slow, recent) = scene().await;
    let done = Arc::new(Notify::new());
    *slow.hold.lock() = Some(Arc::clone(&done));
    {
        let save = recent.save(vec![deactivation(1)]);
        tokio::select! {
            _ = save => panic!("its answer is held back"),
            () = done.notified() => {}
        }
    }
    assert_eq!(status(&recent).await, (AuthorizationStatus::Deactivated, 2));
}
