//! Errors as clients read them: `{"error": {"code", "message"}}`.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::json;

/// A request that was not done.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    /// For programs; never changes for one cause.
    code: &'static str,
    /// For people.
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// The same, with where in the request the cause is.
    pub(super) fn at(mut self, place: &str) -> Self {
        self.message.insert_str(0, place);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        (self.status, Json(body)).into_response()
    }
}

/// A request that was not done, as realtime-style clients read it: `{"error": message, "code"}`.
#[derive(Debug)]
pub(super) struct FlatError(ApiError);

impl From<ApiError> for FlatError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for FlatError {
    fn into_response(self) -> Response {
        let ApiError { status, code, message } = self.0;
        (status, Json(json!({ "error": message, "code": code }))).into_response()
    }
}

pub(super) async fn no_such_path() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no_such_path", "no such path: see docs/OPERATING.md")
}

pub(super) async fn method_not_allowed() -> ApiError {
    let why = "this path does not take that method";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", why)
}
