"""What an OpenAPI document says about requests and answers, ready to be checked.

Source: https://spec.openapis.org/oas/v3.1.1.html, https://spec.openapis.org/oas/v3.0.4.html
"""
