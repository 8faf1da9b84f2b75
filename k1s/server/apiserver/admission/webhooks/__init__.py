"""Admission by other servers: MutatingWebhookConfiguration and ValidatingWebhookConfiguration."""
