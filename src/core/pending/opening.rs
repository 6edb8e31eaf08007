//! Opening a destination, and what is made of it.

use std::sync::Arc;
use std::time::Duration;

use super::{Goal, Limit, Pending, Product, State, Work};
use crate::core::controller::Controller;
use crate::core::dest::{DestPlan, Next};
use crate::core::tunnel::TunnelPlan;
use crate::core::{after, passed};
use crate::error::{Error, Operation, Result};

/// So long a named destination that is "in use" is asked for again, after such pauses.
pub(super) const DUPLICATE_PATIENCE: Duration = Duration::from_secs(6);
const DUPLICATE_PAUSE: Duration = Duration::from_millis(250);

impl Pending {
    /// Opening a destination, begun.
    pub fn open(controller: &Arc<Controller>, plan: DestPlan, limit: Limit) -> Result<Self> {
        let limit = limit.or(controller.bridge().deadlines.open);
        let mut pending = Pending::new(controller.bridge(), Operation::Create, Work::Nothing, State::Running, limit);
        if let Some(product) = pending.open_next(Arc::clone(controller), Box::new(plan))? {
            pending.state = State::Ready(Box::new(product));
        }
        Ok(pending.begin())
    }

    /// Makes a tunnel of the destination that is opened.
    #[must_use]
    pub fn then(mut self, plan: TunnelPlan) -> Self {
        self.then = Some(plan);
        self.make_tunnel();
        self
    }

    pub(super) fn make_tunnel(&mut self) {
        let Some(plan) = self.then.take() else { return };
        self.state = match std::mem::replace(&mut self.state, State::Taken) {
            State::Ready(product) => match *product {
                Product::Dest(dest) => match plan.begin(dest) {
                    Ok(tunnel) => State::Ready(Box::new(Product::Tunnel(tunnel))),
                    Err(error) => State::Failed(error),
                },
                other => State::Ready(Box::new(other)),
            },
            other => {
                self.then = Some(plan);
                other
            }
        };
    }

    /// The next step of opening a destination that is not an exchange yet.
    pub(super) fn open_next(
        &mut self,
        controller: Arc<Controller>,
        mut plan: Box<DestPlan>,
    ) -> Result<Option<Product>> {
        controller.check_open(Operation::Create)?;
        let next = plan.next(&controller)?;
        self.past_generations = self.generation();
        self.work = match next {
            Next::Done(dest) => {
                self.work = Work::Nothing;
                return Ok(Some(Product::Dest(dest)));
            }
            Next::Wait(wake) => {
                // Closed in between, it will wake nobody any more.
                controller.check_open(Operation::Create)?;
                Work::Later { controller, plan, wake: Some(wake), due: None }
            }
            Next::Ask(exchange) => Work::Exchange(exchange, Goal::Dest(controller, plan)),
        };
        Ok(None)
    }

    /// Whether to try again later: a router may not have noticed yet that the last session of these keys has ended.
    pub(super) fn try_later(&mut self, error: &Error) -> bool {
        if error.tag != "DUPLICATED_DEST" || passed(self.patience) {
            return false;
        }
        match std::mem::replace(&mut self.work, Work::Nothing) {
            Work::Exchange(exchange, Goal::Dest(controller, plan)) if plan.is_named() => {
                self.past_generations += exchange.generation();
                let due = after(Some(DUPLICATE_PAUSE));
                self.work = Work::Later { controller, plan, wake: None, due };
                true
            }
            other => {
                self.work = other;
                false
            }
        }
    }
}
