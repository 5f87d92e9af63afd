//! `wasi:http/outgoing-handler`: requests to granted origins. The origin that a request names must be one
//! of the list, exactly as written: no redirect is followed for the guest, no proxy is used, and which
//! address a granted name leads to is up to whoever answers for that name. A shadow sends none: what a
//! request does over there cannot be thrown away.

use std::sync::Arc;

use ::http::{Method, Request, Response};
use segmenter_core::limits;
use tokio::sync::Semaphore;
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
    default_send_request,
};

use crate::grants::{Grants, Origin};
use crate::instance::State;
use crate::output::{Level, Output};

/// What an instance keeps for its requests.
pub(crate) struct Http {
    ctx: WasiHttpCtx,
    hooks: Granted,
}

impl Http {
    pub(crate) fn new(grants: Arc<Grants>, output: Output, shadow: bool) -> Http {
        let mut ctx = WasiHttpCtx::new();
        ctx.set_field_size_limit(limits::HTTP_FIELDS_BYTES_MAX);
        let connections = Arc::new(Semaphore::new(limits::HTTP_CONNECTIONS_MAX));
        Http {
            ctx,
            hooks: Granted {
                grants,
                connections,
                output,
                shadow,
            },
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.http.hooks,
            table: &mut self.table,
            ctx: &mut self.http.ctx,
        }
    }
}

struct Granted {
    grants: Arc<Grants>,
    /// Until the response's body is read or dropped.
    connections: Arc<Semaphore>,
    output: Output,
    shadow: bool,
}

/// To the guest, which may give it as its reason.
const SHADOW: &str = "this is a shadow, which sends no requests";

impl Granted {
    fn check(&self, request: &Request<WasiBody>) -> Result<(), Error> {
        let asked = Origin::of(request.uri());
        if !asked.is_some_and(|origin| self.grants.http.contains(&origin)) {
            let scheme = request.uri().scheme_str().unwrap_or_default();
            let authority = request.uri().authority().map_or("", |a| a.as_str());
            let text = format!(
                "the host refused a request to {scheme}://{authority}: it is not among the grants in `http`"
            );
            self.output.logged(Level::Warn, &text);
            return Err(Error::HttpRequestDenied);
        }
        // It asks a proxy for another origin.
        if request.method() == Method::CONNECT {
            return Err(Error::HttpRequestMethodInvalid);
        }
        if self.shadow {
            self.output.logged(
                Level::Warn,
                &format!("the host refused a request: {SHADOW}"),
            );
            return Err(Error::InternalError(Some(SHADOW.to_owned())));
        }
        Ok(())
    }
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Granted {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Io,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Io), Error>> + Send> {
        let may = self.check(&request).and_then(|()| {
            let connection = self.connections.clone().try_acquire_owned();
            connection.map_err(|_| Error::ConnectionLimitReached)
        });
        Box::new(async move {
            let connection = may?;
            let (response, io) = default_send_request(request, options).await?;
            let io = async move {
                let done = io.await;
                drop(connection);
                done
            };
            Ok((response.map(WasiBody::new), Box::new(io) as Io))
        })
    }
}
