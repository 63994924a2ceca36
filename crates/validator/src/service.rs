//! The two services: a front's primary asks every perspective and bundles; a perspective answers for itself alone.

use std::sync::Arc;
use std::time::Duration;

use acme::receipt::Run;
use futures::future::join_all;
use rpc::proto::validator::v1 as wire;
use rpc::proto::validator::v1::perspective_client::PerspectiveClient;
use rpc::proto::validator::v1::perspective_server::{Perspective, PerspectiveServer};
use rpc::proto::validator::v1::validator_server::{Validator, ValidatorServer};
use rpc::{Channel, Target};
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use crate::failure::LocalFault;
use crate::observer::{ObserveError, Observer};

/// A remote perspective, as its primary knows it.
pub struct Remote {
    /// Its node name, which stands on its receipts.
    pub name: String,
    /// The way there.
    pub client: PerspectiveClient<Channel>,
}

/// Both services over one observer.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    observer: Observer,
    remotes: Vec<Remote>,
    /// For a remote's whole answer.
    patience: Duration,
}

impl Service {
    /// With these remotes, each of which has so long to answer.
    #[must_use]
    pub fn new(observer: Observer, remotes: Vec<Remote>, patience: Duration) -> Self {
        Self { inner: Arc::new(Inner { observer, remotes, patience }) }
    }

    /// For [`rpc::serve`] with [`rpc::AccessTable::validator`].
    #[must_use]
    pub fn routes(&self) -> Routes {
        Routes::new(ValidatorServer::new(self.clone())).add_service(PerspectiveServer::new(self.clone()))
    }
}

#[tonic::async_trait]
impl Validator for Service {
    async fn validate(
        &self,
        request: Request<wire::ValidateRequest>,
    ) -> Result<Response<wire::ValidateResponse>, Status> {
        let target = parse(request.into_inner().target)?;
        let admission = self.inner.observer.admit(target.clone()).map_err(status)?;
        let run = draw_run()?;
        let remotes = self.inner.remotes.iter().map(|remote| self.inner.ask(remote, &target, run));
        let (own, others) = futures::join!(self.inner.observer.observe(admission, run), join_all(remotes));
        let own = own.inspect_err(|error| warn!(%error, "validate.own"));
        let mut response = wire::ValidateResponse::default();
        if let Ok(receipt) = &own {
            response.receipts.push(receipt.clone());
        } else {
            response.silent.push(self.inner.observer.perspective().to_owned());
        }
        for (remote, answer) in self.inner.remotes.iter().zip(others) {
            match answer {
                Some(receipt) => response.receipts.push(receipt),
                None => response.silent.push(remote.name.clone()),
            }
        }
        info!(name = %target.name, attempt = target.attempt, receipts = response.receipts.len(),
            silent = response.silent.len(), "validate");
        fail::fail_point!("validator.before-reply");
        match own {
            // Nobody saw anything: there is nothing to judge, and asking again can help.
            Err(error) if response.receipts.is_empty() => Err(status(error)),
            _ => Ok(Response::new(response)),
        }
    }
}

#[tonic::async_trait]
impl Perspective for Service {
    async fn observe(
        &self,
        request: Request<wire::ObserveRequest>,
    ) -> Result<Response<wire::ObserveResponse>, Status> {
        let request = request.into_inner();
        let target = parse(request.target)?;
        let run = <[u8; 16]>::try_from(&*request.run).map_err(|_| rpc::ConvertError { field: "run" })?;
        let admission = self.inner.observer.admit(target).map_err(status)?;
        let receipt = self.inner.observer.observe(admission, Run::from_bytes(run)).await.map_err(status)?;
        Ok(Response::new(wire::ObserveResponse { receipt }))
    }
}

impl Inner {
    async fn ask(&self, remote: &Remote, target: &Target, run: Run) -> Option<String> {
        let run = run.as_bytes().to_vec().into();
        let mut request = Request::new(wire::ObserveRequest { target: Some(target.into()), run });
        request.set_timeout(self.patience);
        let mut client = remote.client.clone();
        let failure = match tokio::time::timeout(self.patience, client.observe(request)).await {
            Err(_) => "no answer in time".to_owned(),
            Ok(Err(status)) => format!("{:?}: {}", status.code(), status.message()),
            Ok(Ok(answer)) => {
                let receipt = answer.into_inner().receipt;
                match acme::receipt::perspective(&receipt) {
                    Ok(name) if name.as_str() == remote.name => return Some(receipt),
                    Ok(name) => format!("it answers as {name}"),
                    Err(error) => error.to_string(),
                }
            }
        };
        metrics::counter!("chancery_perspective_silent_total", "perspective" => remote.name.clone())
            .increment(1);
        warn!(perspective = remote.name, failure, "validate.silent");
        None
    }
}

fn draw_run() -> Result<Run, Status> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| rpc::unavailable("no random numbers", RETRY))?;
    Ok(Run::from_bytes(random))
}

fn parse(target: Option<wire::Target>) -> Result<Target, Status> {
    let target = target.ok_or(rpc::ConvertError { field: "target" })?;
    Ok(Target::try_from(target)?)
}

fn status(error: ObserveError) -> Status {
    match error {
        ObserveError::Local(LocalFault::Busy) => {
            metrics::counter!("chancery_validations_shed_total").increment(1);
            rpc::busy(&error.to_string(), RETRY)
        }
        ObserveError::Local(LocalFault::Resolver | LocalFault::Unvalidated) => {
            rpc::unavailable(&error.to_string(), RETRY)
        }
        ObserveError::Unfit(_) | ObserveError::NoCaa | ObserveError::Receipt(_) => {
            rpc::failure(error.class(), error.to_string())
        }
    }
}

/// An attempt takes about this long when its target answers.
const RETRY: Duration = Duration::from_secs(1);
