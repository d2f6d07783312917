//! Requests: receives datagrams, and starts a session for each read request that is admitted.

use std::{net::SocketAddr, sync::Arc};

use rtftp_core::{Packet, wire::packet::ErrorCode};
use smol::future::pending;

use super::{
    Server,
    admission::{Admission, Admitted, Limit},
    error_reply::ErrorReply,
    session::Session,
};
use crate::{
    clock,
    history::{RequestRecord, snapshot::State},
    local_fs::SharedRoot,
    net::{Datagrams, Route},
};

impl Server {
    /// Receives datagrams and hands each to `handle`, which must not block, with the root directory for those that have arrived
    /// together. Never returns.
    pub(super) async fn receive(&self, handle: impl Fn(&[u8], Route, &Arc<SharedRoot>)) {
        let mut datagrams = Datagrams::new();
        loop {
            match self.listener.receive(&mut datagrams).await {
                Ok(()) => {
                    let root = self.context.files.share_root();
                    datagrams.iter().for_each(|(datagram, route)| handle(datagram, route, &root));
                }
                Err(error) => {
                    log::debug!("cannot receive requests: {error}");
                    self.listener.closed_ports().for_each(|client| self.end_transfer(client));
                }
            }
        }
    }

    /// Starts a session for a read request, delivers a datagram to its transfer, or rejects it.
    pub(super) fn handle(&self, datagram: &[u8], route: Route, root: &Arc<SharedRoot>) {
        let (context, client) = (&self.context, route.client.ip());
        let reply = match Packet::parse(datagram) {
            Ok(Packet::ReadRequest(request)) => {
                let admission = context.sessions.lock().admit(route.client, datagram, &request);
                match admission {
                    Admission::Start(admitted) => {
                        let record = context.history.record_request(client, request.file);
                        return self.start(route, root.clone(), admitted, record);
                    }
                    Admission::Duplicate => {
                        context.history.record_copy(client, request.file);
                        return log::debug!("{}: duplicate request ignored", route.client);
                    }
                    Admission::Ignored => {
                        return context.requests_warning.log(format_args!(
                            "{}: request ignored until it is repeated: too many requests of unknown clients",
                            route.client
                        ));
                    }
                    Admission::Full(limit) => {
                        let reason = limit.to_client();
                        context.history.record_request(client, request.file).finish(State::Refused, Some(reason));
                        self.warn_about(limit, route.client);
                        ErrorReply::new(ErrorCode::NOT_DEFINED, reason)
                    }
                }
            }
            Ok(Packet::WriteRequest(request)) => {
                let reason = "this server does not take files";
                context.history.record_request(client, request.file).finish(State::Refused, Some(reason));
                ErrorReply::new(ErrorCode::ACCESS_VIOLATION, "Access violation: this server does not take files")
            }
            _ if self.deliver(datagram, route) => return,
            // It may repeat the last ACK of a finished transfer: an ERROR could end the client's next one.
            Ok(Packet::Ack { .. }) if self.config.single_port => return,
            // An ERROR, even a truncated one, is never answered: two programs could reply to each other forever.
            _ if datagram.starts_with(&[0, 5]) => return,
            _ => ErrorReply::new(ErrorCode::ILLEGAL_OPERATION, "Illegal TFTP operation: not a TFTP request"),
        };
        if self.rejections.lock().allows(clock::now()) {
            log::debug!("{}: rejected: {}", route.client, reply.message);
            reply.send_to(context, route);
        }
    }

    /// Warns that a limit has been reached.
    fn warn_about(&self, limit: Limit, client: SocketAddr) {
        let warning = match limit {
            Limit::Transfers => &self.context.transfers_warning,
            Limit::PerClient => &self.context.per_client_warning,
        };
        warning.log(format_args!("{client}: request refused: {} ({})", limit.to_client(), limit.option()));
    }

    /// Delivers a datagram to its transfer, if transfers share the listening port, and returns whether there is one.
    fn deliver(&self, datagram: &[u8], route: Route) -> bool {
        let handle = if self.config.single_port { self.context.sessions.lock().get(route.client) } else { None };
        handle.is_some_and(|handle| handle.delivery.get().is_some_and(|delivery| delivery.deliver(datagram, route)))
    }

    /// Ends the transfer to a client that has closed its port, if transfers share the listening port.
    fn end_transfer(&self, client: SocketAddr) {
        let handle = self.context.sessions.lock().get(client);
        if let Some(delivery) = handle.as_ref().and_then(|handle| handle.delivery.get()) {
            delivery.port_closed();
        }
    }

    /// Spawns the session of an admitted request.
    fn start(&self, route: Route, root: Arc<SharedRoot>, admitted: Admitted, record: RequestRecord) {
        let context = self.context.clone();
        let executor = if admitted.is_known { &self.executor } else { &self.newcomers };
        let handle = admitted.handle.clone();
        let run = async move {
            // Boxed once it runs: in a flood, many wait for that.
            Box::pin(Session::new(context.clone(), route, admitted, record).run(root)).await;
            context.sessions.lock().finish(&handle);
        };
        executor.spawn(run).detach();
    }

    /// Delivers datagrams to running transfers that share the listening port, and ignores requests. Never returns.
    pub(super) async fn deliver_only(&self) {
        if self.config.single_port {
            self.receive(|datagram, route, _| _ = self.deliver(datagram, route)).await;
        }
        pending::<()>().await;
    }
}
