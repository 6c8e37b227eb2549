//! The API describes itself, and every refusal is a problem document.

use http::Method;
use serde_json::Value;

use super::{Api, PUBLIC_URL};
use crate::control::Door;

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

async fn document(api: &Api, door: Door) -> Value {
    let answer = match door {
        Door::Public => api.public(Method::GET, "/openapi.json", None, None).await,
        Door::Operator => api.operator(Method::GET, "/openapi.json", None, None).await,
    };
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["content-type"]),
        (200, &"application/json".parse().expect("a value"))
    );
    answer.body
}

/// Path, method and description of every operation.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let of = |(path, item)| METHODS.iter().filter_map(move |method| Some((path, *method, Value::get(item, method)?)));
    paths.iter().map(|(path, item)| (path.as_str(), item)).flat_map(of).collect()
}

#[tokio::test]
async fn the_methods_a_path_takes_are_those_it_is_described_with() {
    let api = Api::new().await;
    for door in [Door::Public, Door::Operator] {
        let document = document(&api, door).await;
        let paths = document["paths"].as_object().expect("paths");
        for (path, item) in paths {
            let path = path.replace("{id}", "x");
            let answer = match door {
                Door::Public => api.public(Method::TRACE, &path, None, None).await,
                Door::Operator => api.operator(Method::TRACE, &path, None, None).await,
            };
            answer.is_problem(405);
            let allow = answer.headers["allow"].to_str().expect("text").to_ascii_lowercase();
            let mut taken: Vec<&str> = allow.split(',').map(str::trim).filter(|method| *method != "head").collect();
            let mut described: Vec<&str> = METHODS.into_iter().filter(|method| item.get(method).is_some()).collect();
            taken.sort_unstable();
            described.sort_unstable();
            assert_eq!(taken, described, "{door:?} {path}");
        }
    }
}

#[test]
fn no_route_goes_without_a_description() {
    let source = include_str!("../mod.rs");
    for way in [".route(", ".nest(", ".route_service(", ".nest_service("] {
        assert!(!source.contains(way), "{way} registers a route that is not described: use routes!");
    }
}

#[tokio::test]
async fn strangers_are_not_told_of_what_is_for_operators() {
    let api = Api::new().await;
    let (public, operator) = (document(&api, Door::Public).await, document(&api, Door::Operator).await);
    assert!(operator["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    assert_eq!((&public["servers"][0]["url"], &operator["servers"][0]["url"]), (&PUBLIC_URL.into(), &"/".into()));
    for (document, there) in [(&public, false), (&operator, true)] {
        for path in ["/api/operators", "/api/events", "/api/import/openagora"] {
            assert_eq!(document["paths"].get(path).is_some(), there, "{path}");
        }
        assert_eq!(document["components"]["schemas"].get("NewToken").is_some(), there);
    }
}

#[tokio::test]
async fn every_operation_has_a_name_of_its_own_its_credentials_and_its_refusals() {
    let api = Api::new().await;
    for door in [Door::Public, Door::Operator] {
        let document = document(&api, door).await;
        let mut names = std::collections::HashSet::new();
        for (path, method, operation) in operations(&document) {
            let name = operation["operationId"].as_str().expect("a name");
            assert!(names.insert(name), "{name} is there twice");
            assert!(operation["summary"].is_string() && operation["tags"][0].is_string(), "{method} {path}");
            if !path.starts_with("/api/") {
                continue;
            }
            let open = operation["security"].as_array().expect("security").contains(&serde_json::json!({}));
            assert!(!open || door == Door::Public, "{method} {path} is open to everybody at the operators' door");
            for status in ["400", "401", "403", "429", "500", "503"] {
                let content = &operation["responses"][status]["content"]["application/problem+json"];
                assert_eq!(content["schema"]["$ref"], "#/components/schemas/Problem", "{method} {path} {status}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_referred_to_is_there() {
    let api = Api::new().await;
    let document = document(&api, Door::Operator).await;
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap_or_default();
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
}

#[tokio::test]
async fn what_the_framework_refuses_is_a_problem_too() {
    let api = Api::new().await;
    api.public(Method::GET, "/api/agents/%ff", None, None).await.is_problem(400);
    api.admin(Method::DELETE, "/api/keys/%ff", None).await.is_problem(400);
    api.admin(Method::DELETE, "/api/operators/%c3%28", None).await.is_problem(400);
    for method in [Method::OPTIONS, Method::TRACE, Method::PATCH] {
        let answer = api.public(method, "/api/agents", None, None).await;
        answer.is_problem(405);
        assert_eq!(answer.headers["allow"], "GET,HEAD,POST");
    }
    assert_eq!(api.public(Method::HEAD, "/api/agents", None, None).await.status, 200);
    assert_eq!(api.public(Method::HEAD, "/api/agents/nobody", None, None).await.status, 404);
    api.public(Method::GET, "/api/agents?limit=0", None, None).await.is_problem(400);
    api.public(Method::GET, "/api/agents?limit=x", None, None).await.is_problem(400);
    let odd = api.public(Method::GET, "/api/agents?unknown=%ff&&=&q=%00", None, None).await;
    assert_eq!(odd.status, 200, "{}", odd.text);
}
